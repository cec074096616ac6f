//! Commands about services.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Change, Outcome, Rejection, update as rollout};
use crate::event::Event;
use crate::model::{PortMode, PortSpec, Protocol, Service, ServiceId, ServiceSpec, Version};
use crate::state::State;

/// Docker's range for published ports that the user did not choose.
const AUTOMATIC_PORTS: RangeInclusive<u16> = 30_000..=32_767;

pub(super) fn create(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    spec: &ServiceSpec,
) -> Outcome {
    if state.services.contains_key(id) {
        return Err(Rejection::ServiceExists(id.clone()));
    }
    if state.service_named(&spec.name).is_some() {
        return Err(Rejection::NameTaken(spec.name.clone()));
    }
    let mut spec = spec.clone();
    check_ports(state, id, &spec.ports)?;
    fill_ports(state, id, &mut spec.ports, &[])?;
    let service = Service {
        id: id.clone(),
        version: change.index,
        created_at: change.at,
        updated_at: change.at,
        spec,
        spec_version: change.index,
        previous_spec: None,
        update_status: None,
        rebalance: None,
        removing: false,
    };
    state.services.insert(id.clone(), Arc::new(service));
    Ok(vec![Event::Service(id.clone())])
}

pub(super) fn update(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    expected: Version,
    spec: &ServiceSpec,
) -> Outcome {
    let service = find(state, id)?;
    if service.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    if service.spec.name != spec.name {
        return Err(Rejection::Rename);
    }
    if discriminant(&service.spec.mode) != discriminant(&spec.mode) {
        return Err(Rejection::ModeChange);
    }
    let mut spec = spec.clone();
    check_ports(state, id, &spec.ports)?;
    fill_ports(state, id, &mut spec.ports, &service.spec.ports)?;
    rollout::change_spec(state, change, id, spec)
}

pub(super) fn remove(state: &mut State, change: Change, id: &ServiceId) -> Outcome {
    let service = state
        .service_mut(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    if service.removing {
        return Ok(Vec::new());
    }
    service.removing = true;
    service.version = change.index;
    service.updated_at = change.at;
    Ok(vec![Event::Service(id.clone())])
}

pub(super) fn delete(state: &mut State, id: &ServiceId) -> Outcome {
    let service = state
        .service(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    if !service.removing || state.tasks_of(id).next().is_some() {
        return Err(Rejection::ServiceInUse(id.clone()));
    }
    state.services.remove(id);
    Ok(vec![Event::Service(id.clone())])
}

/// A service that is being removed is gone as far as the user is concerned.
pub(super) fn find<'a>(state: &'a State, id: &ServiceId) -> Result<&'a Service, Rejection> {
    state
        .service(id)
        .filter(|service| !service.removing)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))
}

/// Refuses a published port that another service has. An ingress port is taken on every node,
/// so it conflicts with host ports, too; two host ports conflict only where both services have
/// a task on one node, which is the scheduler's concern. A service that is being removed holds
/// none: its listeners left the table when its removal began.
pub(super) fn check_ports(
    state: &State,
    id: &ServiceId,
    ports: &[PortSpec],
) -> Result<(), Rejection> {
    let others = || {
        state
            .services()
            .filter(|other| other.id != *id && !other.removing)
    };
    for port in ports.iter().filter(|port| port.published != 0) {
        let owner = others().find(|other| {
            other.spec.ports.iter().any(|theirs| {
                theirs.published == port.published
                    && theirs.protocol == port.protocol
                    && (theirs.mode == PortMode::Ingress || port.mode == PortMode::Ingress)
            })
        });
        if let Some(owner) = owner {
            return Err(Rejection::PortInUse {
                port: port.published,
                name: owner.spec.name.clone(),
                service: owner.id.clone(),
            });
        }
    }
    Ok(())
}

/// Gives a number to ingress ports that were left open: the one that the service had for this
/// target before, or else the lowest that is free.
fn fill_ports(
    state: &State,
    id: &ServiceId,
    ports: &mut [PortSpec],
    before: &[PortSpec],
) -> Result<(), Rejection> {
    // Ports of services on their way out are free, but a client may still be talking to their
    // last connections: they are given only to those who ask for them by number.
    let mut used: BTreeSet<(u16, Protocol)> = state
        .services()
        .filter(|other| other.id != *id)
        .flat_map(|other| &other.spec.ports)
        .chain(ports.iter())
        .map(|port| (port.published, port.protocol))
        .collect();
    for port in ports {
        if port.published != 0 || port.mode != PortMode::Ingress {
            continue;
        }
        let kept = before
            .iter()
            .filter(|old| {
                old.mode == PortMode::Ingress
                    && old.target == port.target
                    && old.protocol == port.protocol
            })
            .map(|old| old.published);
        port.published = kept
            .chain(AUTOMATIC_PORTS)
            .find(|&number| !used.contains(&(number, port.protocol)))
            .ok_or(Rejection::NoFreePort)?;
        used.insert((port.published, port.protocol));
    }
    Ok(())
}

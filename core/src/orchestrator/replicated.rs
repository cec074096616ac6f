//! A number of identical tasks, one in each slot.

use super::keep::{self, Aim};
use super::slot::{self, Slot};
use super::{Pass, surplus};
use crate::model::Service;
use crate::updater;

pub(super) fn reconcile(pass: &mut Pass<'_>, service: &Service, replicas: u32) {
    let slots = slot::of(pass.state, &service.id);
    let wanted = replicas as usize;
    let occupied: Vec<(u32, &Slot<'_>)> = slots
        .iter()
        .filter(|(_, slot)| slot.is_occupied())
        .map(|(&number, slot)| (number, slot))
        .collect();
    let missing = wanted.saturating_sub(occupied.len());
    let free = (1..).filter(|number| !slots.get(number).is_some_and(Slot::is_occupied));
    let surplus = surplus::slots(
        pass.state,
        &service.spec.task.placement,
        &slots,
        occupied.len().saturating_sub(wanted),
    );
    // What goes in this very pass is not there for an update to count on.
    let kept: Vec<(u32, &Slot<'_>)> = occupied
        .into_iter()
        .filter(|(number, _)| !surplus.contains(number))
        .collect();
    let aim = Aim {
        surplus,
        missing: free.take(missing).map(|number| (number, None)).collect(),
        rollout: updater::rollout(pass.state, pass.now, service, &kept, wanted),
    };
    keep::pursue(pass, service, &slots, aim);
}

//! Whether a load balancer in front should send clients to this node.

use swarmlet_core::model::Availability;

use super::balancer::Condition;
use super::view::Phase;

/// `Ok` while the node can forward, or every reason why it cannot.
pub(super) fn health(phase: &Phase) -> Result<(), Vec<String>> {
    let Some(active) = phase.active() else {
        return Err(vec![match phase {
            Phase::Starting => "the node is starting".to_owned(),
            _ => "the node is not part of a swarm".to_owned(),
        }]);
    };
    let availability = active
        .agent
        .connected()
        .borrow()
        .spec
        .as_ref()
        .map(|spec| spec.availability);
    let condition = active.balancer.condition().borrow().clone();
    judge(availability, &condition, active.expelled())
}

/// What is wrong without keeping the node from forwarding: for people who look at the page.
pub(super) fn warnings(phase: &Phase) -> Vec<String> {
    let Some(active) = phase.active() else {
        return Vec::new();
    };
    let problems = active.agent.problems();
    let problems = problems.borrow();
    problems
        .iter()
        .map(|found| format!("problem: {found}"))
        .collect()
}

fn judge(
    availability: Option<Availability>,
    condition: &Condition,
    expelled: Option<String>,
) -> Result<(), Vec<String>> {
    // It forwards by a table that nobody brings up to date any more.
    let mut reasons: Vec<String> = expelled.into_iter().collect();
    // Without a manager the node forwards as before; its last wish is not known then.
    if availability == Some(Availability::Drain) {
        reasons.push("the node is being drained".to_owned());
    }
    match condition {
        Condition::Down => reasons.push("the balancer is down".to_owned()),
        Condition::Up(errors) => reasons.extend(
            errors
                .iter()
                .map(|error| format!("port {} is not served: {}", error.port, error.reason)),
        ),
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons)
    }
}

#[cfg(test)]
mod tests {
    use swarmlet_lb::status::PortError;

    use super::*;

    #[test]
    fn a_node_that_cannot_forward_says_why() {
        let up = Condition::Up(Vec::new());
        assert_eq!(judge(None, &up, None), Ok(()));
        assert_eq!(judge(Some(Availability::Active), &up, None), Ok(()));
        assert_eq!(judge(Some(Availability::Pause), &up, None), Ok(()));
        let port = Condition::Up(vec![PortError {
            port: 80,
            reason: "address in use".to_owned(),
        }]);
        assert_eq!(
            judge(Some(Availability::Drain), &port, None),
            Err(vec![
                "the node is being drained".to_owned(),
                "port 80 is not served: address in use".to_owned(),
            ])
        );
        assert_eq!(
            judge(None, &Condition::Down, None),
            Err(vec!["the balancer is down".to_owned()])
        );
        let removed = Some("it was removed".to_owned());
        assert_eq!(
            judge(None, &up, removed),
            Err(vec!["it was removed".to_owned()])
        );
    }
}

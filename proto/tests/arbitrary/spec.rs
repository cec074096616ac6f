//! Random specifications of services and their tasks.

use super::*;

pub(super) fn resources() -> impl Strategy<Value = Resources> {
    let generic = btree_map(text(), any::<u64>(), 0..3);
    (any::<[u64; 3]>(), generic).prop_map(|([nano_cpus, memory_bytes, pids], generic)| Resources {
        nano_cpus,
        memory_bytes,
        pids,
        generic,
    })
}

pub(super) fn health() -> impl Strategy<Value = HealthCheck> {
    let test = prop_oneof![
        Just(HealthTest::Inherit),
        text().prop_map(HealthTest::Shell),
        Just(HealthTest::Disabled),
    ];
    let time = || option::of(duration());
    let start = (time(), time());
    (test, time(), time(), start, option::of(any::<u32>())).prop_map(
        |(test, interval, timeout, (start_period, start_interval), retries)| HealthCheck {
            test,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        },
    )
}

pub(super) fn mount() -> impl Strategy<Value = Mount> {
    let kind = one_of(&[MountKind::Bind, MountKind::Volume, MountKind::Tmpfs]);
    (kind, text(), text(), any::<bool>()).prop_map(|(kind, source, target, read_only)| Mount {
        kind,
        source,
        target,
        read_only,
    })
}

pub(super) fn container() -> impl Strategy<Value = ContainerSpec> {
    let list = || vec(text(), 0..3);
    let maybe = || option::of(text());
    let first = (text(), list(), list(), list(), labels(), maybe(), maybe());
    let second = (
        maybe(),
        vec(mount(), 0..2),
        maybe(),
        duration(),
        option::of(health()),
        option::of(text().prop_map(RegistryAuth)),
        option::of(check::check()),
        check::unhealthy_action(),
        vec(platform(), 0..3),
    );
    (first, second).prop_map(|(first, second)| {
        let (image, entrypoint, args, env, labels, hostname, user) = first;
        let (workdir, mounts, stop_signal, stop_grace_period, health, ..) = second;
        let (.., registry_auth, check, unhealthy_action, platforms) = second;
        ContainerSpec {
            image,
            entrypoint,
            args,
            env,
            labels,
            hostname,
            user,
            workdir,
            mounts,
            stop_signal,
            stop_grace_period,
            health,
            registry_auth,
            check,
            unhealthy_action,
            platforms,
        }
    })
}

pub(super) fn restart_policy() -> impl Strategy<Value = RestartPolicy> {
    let conditions = [
        RestartCondition::Any,
        RestartCondition::OnFailure,
        RestartCondition::None,
    ];
    (one_of(&conditions), duration(), any::<u32>(), duration()).prop_map(
        |(condition, delay, max_attempts, window)| RestartPolicy {
            condition,
            delay,
            max_attempts,
            window,
        },
    )
}

pub(super) fn placement() -> impl Strategy<Value = Placement> {
    let op = one_of(&[ConstraintOp::Equal, ConstraintOp::NotEqual]);
    let constraint =
        (text(), op, text()).prop_map(|(key, op, value)| Constraint { key, op, value });
    let preferences = ["node.labels.zone", "engine.labels.rack", "node.hostname"];
    let preference =
        one_of(&preferences).prop_map(|attribute| Preference::spread(attribute).unwrap());
    (
        vec(constraint, 0..3),
        vec(preference, 0..3),
        any::<u32>(),
        vec(platform(), 0..3),
        one_of(&[Order::Spread, Order::Binpack]),
    )
        .prop_map(
            |(constraints, preferences, max_replicas, platforms, strategy)| Placement {
                constraints,
                preferences,
                max_replicas,
                platforms,
                strategy,
            },
        )
}

pub(super) fn log_driver() -> impl Strategy<Value = LogDriver> {
    (text(), labels()).prop_map(|(name, options)| LogDriver { name, options })
}

pub(super) fn task_spec() -> impl Strategy<Value = TaskSpec> {
    (
        vec(container(), 0..3),
        resources(),
        resources(),
        restart_policy(),
        placement(),
        any::<u64>(),
        option::of(log_driver()),
    )
        .prop_map(
            |(containers, limits, reservations, restart, placement, force_update, log_driver)| {
                TaskSpec {
                    containers,
                    resources: ResourceRequirements {
                        limits,
                        reservations,
                    },
                    restart,
                    placement,
                    force_update,
                    log_driver,
                }
            },
        )
}

pub(super) fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    (
        text(),
        labels(),
        service_mode(),
        task_spec(),
        vec(port_spec(), 0..3),
        duration(),
        (update_config(), update_config()),
        (lb_policy(), any::<bool>()),
    )
        .prop_map(
            |(name, labels, mode, task, ports, drain_timeout, updates, lb)| ServiceSpec {
                name,
                labels,
                mode,
                task,
                ports,
                lb_policy: lb.0,
                lb_prefer_local: lb.1,
                drain_timeout,
                update: updates.0,
                rollback: updates.1,
            },
        )
}

pub(super) fn service_mode() -> impl Strategy<Value = ServiceMode> {
    prop_oneof![
        any::<u32>().prop_map(|replicas| ServiceMode::Replicated { replicas }),
        Just(ServiceMode::Global {}),
        any::<(u32, u32)>().prop_map(|(max_concurrent, total_completions)| {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            }
        }),
        Just(ServiceMode::GlobalJob {}),
    ]
}

pub(super) fn update_config() -> impl Strategy<Value = UpdateConfig> {
    let actions = [
        FailureAction::Pause,
        FailureAction::Continue,
        FailureAction::Rollback,
    ];
    let order = one_of(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]);
    let durations = (duration(), duration(), duration());
    let percent = || option::of(any::<u32>());
    (
        (any::<u32>(), 0..=1_000_000u32),
        durations,
        one_of(&actions),
        order,
        percent(),
        percent(),
    )
        .prop_map(
            |(
                (parallelism, ratio),
                (delay, monitor, deadline),
                failure_action,
                order,
                min,
                max,
            )| {
                UpdateConfig {
                    parallelism,
                    delay,
                    monitor,
                    max_failure_ratio: FailureRatio::from_millionths(ratio).unwrap(),
                    failure_action,
                    order,
                    min_healthy_percent: min,
                    max_percent: max,
                    progress_deadline: deadline,
                }
            },
        )
}

pub(super) fn update_state() -> impl Strategy<Value = UpdateState> {
    one_of(&[
        UpdateState::Updating,
        UpdateState::Paused,
        UpdateState::Completed,
        UpdateState::RollbackStarted,
        UpdateState::RollbackPaused,
        UpdateState::RollbackCompleted,
    ])
}

pub(super) fn update_status() -> impl Strategy<Value = UpdateStatus> {
    (
        update_state(),
        timestamp(),
        option::of(timestamp()),
        text(),
        any::<u32>(),
        any::<u32>(),
        option::of(task_id()),
    )
        .prop_map(
            |(state, started_at, completed_at, message, slots, failures, failed_task)| {
                UpdateStatus {
                    state,
                    started_at,
                    completed_at,
                    message,
                    slots,
                    failures,
                    failed_task,
                }
            },
        )
}

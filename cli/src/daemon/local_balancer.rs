//! What the command line asks about its own machine's balancer: `LocalBalancer` of
//! balancer.proto.

use std::time::Duration;

use swarmlet_proto::v1;
use swarmlet_proto::v1::local_balancer_server::LocalBalancer;
use tonic::{Request, Response, Status};

use super::balancer::Balancer;
use super::view::Views;

pub(super) struct LocalBalancerService {
    pub(super) views: Views,
}

impl LocalBalancerService {
    fn balancer(&self) -> Result<Balancer, Status> {
        let phase = self.views.now();
        let active = phase.active().ok_or_else(|| {
            Status::failed_precondition(
                "This node is not part of a swarm, and so it has no balancer. Use \"swarmlet \
                 init\" or \"swarmlet join\", or ask one that runs by itself with --control.",
            )
        })?;
        Ok(active.balancer.clone())
    }
}

#[tonic::async_trait]
impl LocalBalancer for LocalBalancerService {
    async fn balancer_status(
        &self,
        _: Request<v1::BalancerStatusRequest>,
    ) -> Result<Response<v1::BalancerStatusResponse>, Status> {
        let generations = self.balancer()?.generations().await;
        if generations.is_empty() {
            return Err(Status::unavailable(
                "the balancer does not run; its log lb.log and the daemon's say why",
            ));
        }
        let texts: Result<Vec<_>, _> = generations.iter().map(serde_json::to_string).collect();
        let generations = texts.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::BalancerStatusResponse { generations }))
    }

    async fn balancer_restart(
        &self,
        request: Request<v1::BalancerRestartRequest>,
    ) -> Result<Response<v1::BalancerRestartResponse>, Status> {
        let patience = Some(Duration::from_millis(request.into_inner().patience_ms));
        let restarted = self
            .balancer()?
            .restart(patience.filter(|patience| !patience.is_zero()))
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(v1::BalancerRestartResponse {
            before: restarted.before,
            after: restarted.after,
        }))
    }
}

//! Logging drivers.

use swarmlet_core::model::LogDriver;

use super::Malformed;
use crate::v1;

impl From<&LogDriver> for v1::LogDriver {
    fn from(driver: &LogDriver) -> Self {
        Self {
            name: driver.name.clone(),
            options: driver.options.clone(),
        }
    }
}

impl TryFrom<v1::LogDriver> for LogDriver {
    type Error = Malformed;

    fn try_from(message: v1::LogDriver) -> Result<Self, Malformed> {
        Ok(Self {
            name: message.name,
            options: message.options,
        })
    }
}

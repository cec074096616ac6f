//! The whole of core against fake agents on a virtual clock: scenarios with golden output, and
//! random commands and faults against the invariants.

// The attribute repeats what is true of this whole target, so that the lints know it, too.
#[cfg(test)]
mod agent;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod options;
#[cfg(test)]
mod placement;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod shown;
#[cfg(test)]
mod simulation;

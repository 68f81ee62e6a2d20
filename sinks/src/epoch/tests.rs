//! Epochs against a model, faults at every step, fencing, and other people's readers.

mod faults;
mod model;
mod readers;
mod speed;

use super::*;

/// Makes a commit fail at a step: 0 before any file, 1 after the tables' files, 2 before the flip, 3 after it (a lost answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) usize);

pub(crate) fn strike(fault: &std::sync::Mutex<Option<Fault>>, step: usize) -> Result<(), SinkError> {
    let mut armed = fault.lock().unwrap();
    if *armed == Some(Fault(step)) {
        *armed = None;
        return Err(match step {
            3 => SinkError::Unknown { epoch: 0, source: sqlx::Error::Protocol("the answer got lost".into()) },
            _ => SinkError::Thread(format!("stopped by the test at step {step}")),
        });
    }
    Ok(())
}

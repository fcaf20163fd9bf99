//! Signals: the contract numbers them by itself, the kernel has its own numbers, and images name them.

use tripod_cri_api::v1::Signal;
use tripod_engine::{ContainerConfig, isolator::signal};

use super::{Refusal, Refused};

/// The kernel's number for what a request asks; `None` leaves it to the image.
pub(super) fn from_wire(field: &str, number: i32) -> Refused<Option<i32>> {
    let unknown = || Refusal::new(field, format!("{number} is no signal of the contract"));
    match Signal::try_from(number).map_err(|_| unknown())? {
        Signal::RuntimeDefault => Ok(None),
        named => kernel(named).map(Some).ok_or_else(unknown),
    }
}

/// The contract's number for one of the kernel's. Where one signal has two names the first counts.
pub(super) fn to_wire(number: i32) -> Signal {
    (1..=Signal::Sigrtmax as i32)
        .filter_map(|wire| Signal::try_from(wire).ok())
        .find(|named| kernel(*named) == Some(number))
        .unwrap_or(Signal::RuntimeDefault)
}

/// The signal that stops a container: the request's, the image's, or SIGTERM.
pub(super) fn of_container(config: &ContainerConfig) -> i32 {
    let of_image = || signal::parse(&config.image.config.stop_signal);
    config.stop_signal.or_else(of_image).unwrap_or(signal::TERM)
}

fn kernel(named: Signal) -> Option<i32> {
    let name = named.as_str_name().trim_start_matches("SIGNAL_");
    signal::parse(&name.replace("PLUS", "+").replace("MINUS", "-"))
}

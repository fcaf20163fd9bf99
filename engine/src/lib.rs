//! The core of tripod: pods, containers, plugin traits, launch plans, records and events.

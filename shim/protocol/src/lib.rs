//! What the daemon and tripod-shim say to each other: launch plans, requests, replies, events.

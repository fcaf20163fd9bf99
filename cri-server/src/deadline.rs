//! A layer around all services: a call whose client has set a deadline is answered with DEADLINE_EXCEEDED when that is
//! over. Left to itself the server answers CANCELLED then, in a race with the client's own clock.
//!
//! Only the waiting ends: operations belong to the engine and run on. A command of ExecSync is killed, as whenever nobody
//! waits for it any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{
    Status,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};

/// So much earlier than the server's own clock runs out, which is set a moment before this one and counts in whole
/// milliseconds.
const HEADSTART: Duration = Duration::from_millis(5);

/// The layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines;

impl<S> Layer<S> for Deadlines {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Limited { inner }
    }
}

/// A service whose calls end at their deadlines.
#[derive(Debug, Clone)]
pub(crate) struct Limited<S> {
    inner: S,
}

impl<S, In, Out> Service<Request<In>> for Limited<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        // Counted from here, and not from when a busy machine first looks at the answer.
        let limit = timeout(request.headers());
        let over = limit.map(|limit| tokio::time::sleep(limit.saturating_sub(HEADSTART)));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (Some(limit), Some(over)) = (limit, over) else { return answer.await };
            tokio::select! {
                biased;
                answer = answer => answer,
                () = over => {
                    let message =
                        format!("the client's deadline of {limit:?} is over; look at the status before you try again");
                    Ok(Status::deadline_exceeded(message).into_http())
                }
            }
        })
    }
}

/// How long the client waits, from the header `grpc-timeout`: at most eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = u64::from(digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?);
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
    }

    #[test]
    fn every_unit_is_read_and_nonsense_is_no_deadline() {
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        for nonsense in ["", "5", "m", "-5m", "5x", "123456789S", "5 m"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}

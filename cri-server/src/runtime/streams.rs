//! Lists in parts, for answers that are too long for one message.

use futures::StreamExt;
use prost::Message;

use super::Stream;

/// Bytes of items in a part: far below the limit of a message (16 MiB), far above the cost of one.
const PART: usize = 1 << 20;

/// All items, each exactly once; no part is empty, so an empty list is an empty stream.
pub(crate) fn parts<I, R>(items: Vec<I>, wrap: fn(Vec<I>) -> R) -> Stream<R>
where
    I: Message + 'static,
    R: Send + 'static,
{
    futures::stream::iter(split(items, PART).into_iter().map(move |part| Ok(wrap(part)))).boxed()
}

fn split<I: Message>(items: Vec<I>, limit: usize) -> Vec<Vec<I>> {
    let mut parts: Vec<Vec<I>> = Vec::new();
    let mut filled = 0;
    for item in items {
        let size = item.encoded_len();
        match parts.last_mut() {
            Some(part) if filled + size <= limit => {
                filled += size;
                part.push(item);
            }
            _ => {
                filled = size;
                parts.push(vec![item]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tripod_cri_api::v1::{PodSandbox, StreamPodSandboxesResponse};

    use super::{parts, split};

    fn pods(count: usize) -> Vec<PodSandbox> {
        (0..count).map(|index| PodSandbox { id: format!("{index:064}"), ..PodSandbox::default() }).collect()
    }

    #[test]
    fn every_item_comes_once_and_in_order() {
        for limit in [1, 66, 67, 200, 1 << 20] {
            let parts = split(pods(100), limit);
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert_eq!(parts.concat(), pods(100));
        }
        assert_eq!(split(pods(100), 660).len(), 10);
    }

    #[tokio::test]
    async fn an_empty_list_is_an_empty_stream() {
        let mut stream = parts(Vec::new(), |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes });
        assert!(stream.next().await.is_none());
    }
}

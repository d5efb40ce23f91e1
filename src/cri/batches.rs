//! The streaming lists: what a List gives, in pieces that fit any client's message limit.

use std::pin::Pin;

use prost::Message;
use tokio_stream::Stream;
use tonic::Status;

/// What a streaming RPC gives.
pub(super) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Encoded bytes of a piece, at most, unless one item alone is larger: well below the 4 MiB
/// that gRPC clients take where nobody told them otherwise.
const MAX_BATCH: usize = 1024 * 1024;

/// The items in their order, as many a message as fit. No items: no message.
pub(super) fn stream<T, M>(items: Vec<T>, wrap: impl Fn(Vec<T>) -> M) -> Streamed<M>
where
    T: Message,
    M: Send + 'static,
{
    let messages: Vec<_> = split(items, MAX_BATCH).into_iter().map(|part| Ok(wrap(part))).collect();
    Box::pin(tokio_stream::iter(messages))
}

fn split<T: Message>(items: Vec<T>, limit: usize) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for item in items {
        let framed = prost::length_delimiter_len(item.encoded_len()) + item.encoded_len() + 1;
        match parts.last_mut() {
            Some(part) if framed <= room => {
                room -= framed;
                part.push(item);
            }
            _ => {
                room = limit.saturating_sub(framed);
                parts.push(vec![item]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cri;

    fn container(length: usize) -> cri::Container {
        cri::Container { id: "x".repeat(length), ..Default::default() }
    }

    #[test]
    fn no_piece_is_over_the_limit_and_the_order_stays() {
        let items: Vec<_> = (0..500).map(|at| container(at % 90)).collect();
        let parts = split(items.clone(), 1000);
        assert!(parts.len() > 10);
        for part in &parts {
            let message = cri::StreamContainersResponse { containers: part.clone() };
            assert!(message.encoded_len() <= 1000, "{}", message.encoded_len());
        }
        assert_eq!(parts.concat(), items);
    }

    #[test]
    fn one_that_is_too_large_goes_alone_and_none_give_none() {
        let parts = split(vec![container(1), container(5000), container(1)], 1000);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(split(Vec::<cri::Container>::new(), 1000).is_empty());
    }
}

use tokio::io::DuplexStream;

use super::*;
use crate::stream::channel::Gone;

/// A client that writes and reads frames by hand.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    fn pair(idle: Duration) -> (Self, Connection) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let client = Self { io: near, encoder: Encoder::default(), decoder: Decoder::default() };
        (client, Connection::new(far, idle))
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        self.encoder.encode(&frame, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, id: StreamId) {
        let headers = Headers(vec![("streamtype".into(), format!("s{id}"))]);
        let (associated, fin, unidirectional) = (0, false, false);
        self.send(Frame::SynStream { id, associated, fin, unidirectional, headers }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode().unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.decoder.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

const IDLE: Duration = Duration::from_mins(1);

fn data(id: StreamId, fin: bool, data: &'static [u8]) -> Frame {
    Frame::Data { id, fin, data: data.into() }
}

#[tokio::test]
async fn streams_are_opened_half_closed_and_closed() {
    let (mut client, mut connection) = Client::pair(IDLE);
    client.open(1).await;
    client.send(data(1, false, b"one")).await;
    client.send(data(1, true, b"two")).await;
    let opened = connection.next().await.unwrap();
    assert_eq!(opened.headers.get("streamtype"), Some("s1"));
    let (mut incoming, outgoing) = opened.accept().await;
    assert_eq!(incoming.next().await.unwrap(), "one");
    assert_eq!(incoming.next().await.unwrap(), "two");
    assert_eq!(incoming.next().await, None);
    // Its half is closed; the other goes on.
    outgoing.send("back".into()).await.unwrap();
    outgoing.end().await;
    let headers = Headers::default();
    assert_eq!(client.next().await, Some(Frame::SynReply { id: 1, fin: false, headers }));
    assert_eq!(client.next().await, Some(data(1, false, b"back")));
    assert_eq!(client.next().await, Some(data(1, true, b"")));
    client.send(Frame::Ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(7)));
    let closed = tokio::spawn(connection.close());
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 0, status: 0 }));
    assert_eq!(client.next().await, None);
    drop(client);
    closed.await.unwrap();
}

#[tokio::test]
async fn a_reset_and_a_vanished_client_end_what_is_under_way() {
    let (mut client, mut connection) = Client::pair(IDLE);
    client.open(1).await;
    client.open(3).await;
    let (mut one, to_one) = connection.next().await.unwrap().accept().await;
    let (mut three, to_three) = connection.next().await.unwrap().accept().await;
    client.send(Frame::RstStream { id: 1, status: 5 }).await;
    assert_eq!(one.next().await, None);
    to_one.gone().await;
    assert_eq!(to_one.send("x".into()).await, Err(Gone));
    to_three.send("y".into()).await.unwrap();
    drop(client);
    assert_eq!(three.next().await, None);
    to_three.gone().await;
    assert!(connection.next().await.is_none());
}

#[tokio::test]
async fn wrong_numbers_and_too_many_streams_are_reset() {
    let (mut client, mut connection) = Client::pair(IDLE);
    let mut held = Vec::new();
    for number in 0..MAX_STREAMS as u32 {
        client.open(2 * number + 1).await;
        held.push(connection.next().await.unwrap());
    }
    let next = 2 * MAX_STREAMS as u32 + 1;
    for (id, status) in [(2, 1), (1, 1), (next, 3)] {
        client.open(id).await;
        assert_eq!(client.next().await, Some(Frame::RstStream { id, status }));
    }
    // One that is over makes room.
    held.pop();
    client.open(next + 2).await;
    assert_eq!(connection.next().await.unwrap().id, next + 2);
}

#[tokio::test]
async fn a_stream_nobody_reads_holds_back_its_connection_and_takes_little_memory() {
    let (mut client, mut connection) = Client::pair(IDLE);
    client.open(1).await;
    let (mut incoming, _outgoing) = connection.next().await.unwrap().accept().await;
    let mut sent = 0;
    let piece = Bytes::from(vec![7; PIECE]);
    loop {
        let frame = Frame::Data { id: 1, fin: false, data: piece.clone() };
        if timeout(Duration::from_millis(200), client.send(frame)).await.is_err() {
            break;
        }
        sent += PIECE;
    }
    assert!(sent < 20 * PIECE, "{sent}");
    assert_eq!(incoming.next().await.unwrap()[0], 7);
    // Whoever stops reading it lets the others go on.
    drop(incoming);
    drop(client);
    assert!(connection.next().await.is_none());
}

#[tokio::test]
async fn half_a_frame_is_waited_for_only_so_long() {
    let idle = Duration::from_millis(100);
    let (mut client, mut connection) = Client::pair(idle);
    client.io.write_all(&[0x80, 3, 0, 1, 0]).await.unwrap();
    let began = Instant::now();
    assert!(connection.next().await.is_none());
    assert!(began.elapsed() >= idle);
}

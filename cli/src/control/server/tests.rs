use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::homedir::tests::Scratch;
use crate::observe::process::Process;

const TEST_LIMIT: Duration = Duration::from_secs(60);

/// A process that is served, and its socket.
struct Served {
    run: Scratch,
    _open: ServedSocket,
}

impl Served {
    async fn new(process: Process) -> Self {
        let run = Scratch::new();
        let open = open(run.path(), process).await.unwrap();
        Self { run, _open: open }
    }

    async fn connect(&self) -> BufReader<UnixStream> {
        let [path] = &socket::list(self.run.path()).unwrap()[..] else { panic!("one socket") };
        BufReader::new(UnixStream::connect(path).await.unwrap())
    }
}

async fn said(client: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    timeout(TEST_LIMIT, client.read_line(&mut line)).await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap()
}

async fn ask(client: &mut BufReader<UnixStream>, line: &[u8]) -> Value {
    client.write_all(line).await.unwrap();
    said(client).await
}

/// Returns true if the other end closed the connection, after any output.
async fn is_over(client: &mut BufReader<UnixStream>) -> bool {
    let mut rest = Vec::new();
    timeout(TEST_LIMIT, client.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_status_names_the_role_and_the_services() {
    let process = Process::new("connector").exposing("web", "127.0.0.1:80");
    let served = Served::new(process.dialling("hub", None, "hub.example:4433")).await;
    let mut client = served.connect().await;
    for _ in 0..2 {
        let status = ask(&mut client, b"{\"op\":\"status\"}\n").await;
        assert_eq!(status["ok"], true);
        assert_eq!(status["role"], "connector");
        assert_eq!(status["pid"], std::process::id());
        assert_eq!(status["services"], json!([{"name": "web", "address": "127.0.0.1:80"}]));
        assert_eq!(status["dials"], json!([{"name": "hub", "address": "hub.example:4433"}]));
        assert_eq!((&status["forwards"], &status["peers"]), (&json!([]), &json!([])));
    }
}

#[tokio::test]
async fn a_reload_returns_the_result_of_the_hook() {
    let calls = Arc::new(AtomicUsize::new(0));
    let process = Process::new("connector").on_reload(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => Ok(Map::from_iter([("closed".to_owned(), Value::from(2))])),
                _ => Err(ExitError::usage("the key is gone; put it back")),
            }
        }
    });
    let served = Served::new(process).await;
    let mut client = served.connect().await;
    let first = ask(&mut client, b"{\"op\":\"reload\"}\n").await;
    assert_eq!(first, json!({"ok": true, "closed": 2}));
    let second = ask(&mut client, b"{\"op\":\"reload\"}\n").await;
    assert_eq!(second, json!({"ok": false, "error": "the key is gone; put it back"}));
}

#[tokio::test]
async fn reload_without_files_is_reported() {
    let served = Served::new(Process::new("agent")).await;
    let answer = ask(&mut served.connect().await, b"{\"op\":\"reload\"}\n").await;
    assert_eq!(answer["ok"], false);
    assert!(answer["error"].as_str().unwrap().starts_with("this agent has nothing to reload"));
}

#[tokio::test]
async fn garbage_is_answered_and_the_client_may_go_on() {
    let served = Served::new(Process::new("agent")).await;
    let mut client = served.connect().await;
    for garbage in [&b"\n"[..], b"\xff\xfe\0\n", b"{\"op\":\"stop\"}\n", b"[[[[[[\n"] {
        assert_eq!(ask(&mut client, garbage).await["ok"], false);
    }
    assert_eq!(ask(&mut client, b"{\"op\":\"status\"}\n").await["ok"], true);
}

#[tokio::test]
async fn a_request_may_be_as_long_as_its_limit_and_one_byte_more_ends_it() {
    let served = Served::new(Process::new("agent")).await;
    let line = |length: usize| {
        let mut line = b"{\"op\":\"status\"}".to_vec();
        line.resize(length - 1, b' ');
        line.push(b'\n');
        line
    };
    let mut client = served.connect().await;
    assert_eq!(ask(&mut client, &line(MAX_REQUEST)).await["ok"], true);
    let answer = ask(&mut client, &line(MAX_REQUEST + 1)).await;
    assert!(answer["error"].as_str().unwrap().starts_with("the request is too long"));
    assert!(is_over(&mut client).await);
}

#[tokio::test]
async fn a_line_that_never_ends_is_not_read_on() {
    let served = Served::new(Process::new("agent")).await;
    let mut client = served.connect().await;
    let sent = timeout(TEST_LIMIT, client.write_all(&vec![b'x'; 8 << 20])).await.unwrap();
    assert!(sent.is_err(), "8 MiB were taken");
}

#[tokio::test]
async fn one_client_more_than_there_may_be_is_turned_away_until_one_leaves() {
    let served = Served::new(Process::new("agent")).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = served.connect().await;
        assert_eq!(ask(&mut client, b"{\"op\":\"status\"}\n").await["ok"], true);
        clients.push(client);
    }
    let mut late = served.connect().await;
    assert!(said(&mut late).await["error"].as_str().unwrap().starts_with("too many ask already"));
    assert!(is_over(&mut late).await);
    clients.pop();
    let again = async {
        while ask(&mut served.connect().await, b"{\"op\":\"status\"}\n").await["ok"] != true {}
    };
    timeout(TEST_LIMIT, again).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_whole_line_is_disconnected() {
    let handler = Arc::new(ControlHandler::new(Process::new("agent")));
    for half in [&b""[..], b"{\"op\":"] {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(half).await.unwrap();
        let idle = Duration::from_millis(50);
        timeout(TEST_LIMIT, attend(server, handler.clone(), idle)).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let long = "x".repeat(16 << 20);
    let handler = Arc::new(ControlHandler::new(Process::new("agent").exposing("web", long)));
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(b"{\"op\":\"status\"}\n").await.unwrap();
    let attending = tokio::spawn(attend(server, handler.clone(), Duration::from_millis(200)));
    timeout(TEST_LIMIT, handler.answer(b"{\"op\":\"reload\"}")).await.unwrap();
    timeout(TEST_LIMIT, attending).await.unwrap().unwrap();
    drop(client);
}

#[tokio::test]
async fn a_request_without_an_end_of_line_is_one_when_the_client_has_no_more() {
    let served = Served::new(Process::new("agent")).await;
    let mut client = served.connect().await;
    client.write_all(b"{\"op\":\"status\"}").await.unwrap();
    client.get_mut().shutdown().await.unwrap();
    assert_eq!(said(&mut client).await["ok"], true);
}

#[test]
fn only_the_owner_and_root_may_connect() {
    assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
}

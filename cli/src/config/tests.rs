//! Which configuration files are accepted, and the errors for the others.

use super::*;
use crate::address::Backend;

const CONNECTOR: &str = r#"
listen = "127.0.0.1:4433"
[tls]
ca = "ca.pem"
certificate = "sub/c.pem"
key = "/etc/adit/c.key"
[[service]]
name = "web"
tcp = "127.0.0.1:8080"
[[service]]
name = "db"
tcp = "db.internal:5432"
allow = ["device-1"]
"#;

const AGENT: &str = r#"
[tls]
ca = "ca.pem"
certificate = "a.pem"
key = "a.key"
[connector]
address = "localhost:4433"
name = "connector"
[[forward]]
listen = "127.0.0.1:9000"
service = "web"
"#;

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "adit-config-{}-{:?}-{name}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn connector(text: &str) -> Result<ConnectorConfig, String> {
    let file = File::new("connector.toml", text);
    ConnectorConfig::load(&file.0).map_err(|stop| message(&stop, &file))
}

fn agent(text: &str) -> Result<AgentConfig, String> {
    let file = File::new("agent.toml", text);
    AgentConfig::load(&file.0).map_err(|stop| message(&stop, &file))
}

fn message(stop: &ExitError, file: &File) -> String {
    assert_eq!(stop.exit(), crate::base::exit::Exit::Usage);
    let text = stop.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.strip_prefix(&format!("{}: ", file.0.display())).unwrap().to_owned()
}

#[test]
fn a_connector_s_file_is_understood_and_its_paths_are_relative_to_it() {
    let config = connector(CONNECTOR).unwrap();
    assert_eq!(config.listen, "127.0.0.1:4433".parse().unwrap());
    let tls = config.tls.unwrap();
    assert_eq!(tls.ca, std::env::temp_dir().join("ca.pem"));
    assert_eq!(tls.certificate, std::env::temp_dir().join("sub/c.pem"));
    assert_eq!(tls.key, Path::new("/etc/adit/c.key"));
    assert_eq!(config.services.len(), 2);
    assert!(config.services[0].allow.is_none());
    assert!(config.services[1].allow.as_ref().unwrap().contains("device-1"));
    assert_eq!(config.limits.connections, 16_384);
}

#[test]
fn an_agent_s_file_is_understood() {
    let config = agent(AGENT).unwrap();
    let AgentTarget::Given(remote, tls) = config.target else { panic!("{:?}", config.target) };
    assert_eq!(remote.addresses[0].to_string(), "localhost:4433");
    assert_eq!(remote.name, "connector");
    assert_eq!(tls.key, std::env::temp_dir().join("a.key"));
    assert_eq!(config.forwards[0].service.as_str(), "web");
    assert_eq!(config.heartbeat.interval, Duration::from_secs(30));
}

#[test]
fn congestion_control_is_bbr_or_cubic() {
    assert_eq!(agent(AGENT).unwrap().limits.congestion, CongestionControl::Bbr);
    let cubic = format!("congestion = \"cubic\"\n{AGENT}");
    assert_eq!(agent(&cubic).unwrap().limits.congestion, CongestionControl::Cubic);
    let other = agent(&format!("congestion = \"reno\"\n{AGENT}")).unwrap_err();
    assert!(other.contains("expected `bbr` or `cubic`"), "{other}");
}

#[test]
fn a_connector_may_have_several_addresses() {
    let several = AGENT.replace("\"localhost:4433\"", "[\"10.0.0.1:1\", \"home.example:2\"]");
    let AgentTarget::Given(remote, _) = agent(&several).unwrap().target else { panic!() };
    assert_eq!(remote.addresses.len(), 2);
    let wrong = AGENT.replace("\"localhost:4433\"", "[\"10.0.0.1:0\"]");
    assert!(agent(&wrong).unwrap_err().contains("\"10.0.0.1:0\" is not a host"));
}

#[test]
fn a_connector_is_known_or_described_and_not_both() {
    let forward = "[[forward]]\nlisten = \"127.0.0.1:9000\"\nservice = \"web\"\n";
    let with = |connector: &str| agent(&format!("[connector]\n{connector}\n{forward}"));
    let target = with("known = \"web\"").unwrap().target;
    assert!(matches!(target, AgentTarget::Known(name) if name == "web"));
    for (keys, said) in [
        ("", "the connector is missing"),
        ("known = \"web\"\nname = \"x\"", "remove \"address\", \"name\""),
        ("address = \"a:1\"", "the key \"name\" is missing"),
        ("name = \"x\"", "the key \"address\" is missing"),
        ("address = \"a:1\"\nname = \"x\"", "the key \"tls\" is missing"),
    ] {
        let sentence = with(keys).unwrap_err();
        assert!(sentence.contains(said), "{keys}: {sentence}");
    }
}

#[test]
fn times_are_written_with_a_unit() {
    let config = agent(&format!("{AGENT}[limits]\nhalf_open = \"5m\"\n")).unwrap();
    assert_eq!(config.limits.half_open, Duration::from_secs(300));
    let said = agent(&format!("{AGENT}[limits]\nhalf_open = \"5 days\"\n")).unwrap_err();
    assert!(said.contains("limits.half_open: \"5 days\" is not a time; write it like"), "{said}");
}

#[test]
fn a_misspelt_key_is_answered_with_the_key_that_was_meant() {
    let said = connector(&CONNECTOR.replace("listen", "lisen")).unwrap_err();
    assert_eq!(said, "line 2: lisen: unknown key \"lisen\"; did you mean \"listen\"?");
    let said = connector(&CONNECTOR.replace("certificate", "certifcate")).unwrap_err();
    assert!(said.ends_with("unknown key \"certifcate\"; did you mean \"certificate\"?"), "{said}");
}

#[test]
fn a_key_unlike_any_other_is_answered_with_those_that_exist() {
    let said = connector(&format!("zzz = 1\n{CONNECTOR}")).unwrap_err();
    assert!(
        said.contains(
            "unknown key \"zzz\"; known here: listen, tls, advertise, relays, direct, port_mapping, service"
        ),
        "{said}"
    );
}

#[test]
fn a_missing_key_is_named_with_an_example() {
    let said = connector(&CONNECTOR.replace("listen = \"127.0.0.1:4433\"", "")).unwrap_err();
    assert!(said.contains("\"listen\" is missing; add it like listen = "), "{said}");
}

#[test]
fn a_wrong_value_is_answered_with_a_right_one() {
    let said = connector(&CONNECTOR.replace("127.0.0.1:4433", "here")).unwrap_err();
    assert!(said.starts_with("line 2: listen: invalid socket address"), "{said}");
    assert!(said.ends_with("write it like listen = \"127.0.0.1:4433\""), "{said}");
    let said = connector(&CONNECTOR.replace("127.0.0.1:8080", "8080")).unwrap_err();
    assert!(said.contains("service[0].tcp: \"8080\" is not a host and a port; write"), "{said}");
    let said = connector(&CONNECTOR.replace("\"web\"", "\"\"")).unwrap_err();
    assert!(said.contains("service[0].name: "), "{said}");
}

#[cfg(unix)]
#[test]
fn a_service_may_be_a_unix_socket_whose_path_is_relative_to_the_file() {
    let backend = |path: &str| {
        let text = CONNECTOR.replace("tcp = \"127.0.0.1:8080\"", &format!("unix = \"{path}\""));
        connector(&text).map(|config| config.services[0].backend.clone())
    };
    let expected = Backend::Unix(std::env::temp_dir().join("app.sock"));
    assert_eq!(backend("app.sock").unwrap(), expected);
    assert_eq!(backend("/run/app.sock").unwrap(), Backend::Unix("/run/app.sock".into()));
    let said = backend(&"a".repeat(107)).unwrap_err();
    assert!(said.contains(": no Unix socket can be there: "), "{said}");
    assert!(said.ends_with("; choose another path"), "{said}");
}

#[test]
fn a_service_is_in_one_place() {
    let none = connector(&CONNECTOR.replace("tcp = \"127.0.0.1:8080\"", "")).unwrap_err();
    assert!(none.contains("service[0]: \"web\" does not say where it is; add tcp = "), "{none}");
    let both = "tcp = \"127.0.0.1:8080\"\nunix = \"app.sock\"";
    let both = connector(&CONNECTOR.replace("tcp = \"127.0.0.1:8080\"", both)).unwrap_err();
    assert!(both.ends_with("has both \"tcp\" and \"unix\"; remove one of them"), "{both}");
}

#[test]
fn a_name_that_is_the_program_s_own_is_refused() {
    let said = connector(&CONNECTOR.replace("\"web\"", "\"adit.web\"")).unwrap_err();
    assert!(said.contains("\"adit.web\": names that begin with \"adit.\" are"), "{said}");
    assert!(said.ends_with("; choose another"), "{said}");
    assert!(connector(&CONNECTOR.replace("\"web\"", "\"adit\"")).is_ok());
}

#[test]
fn text_that_is_not_toml_is_located() {
    let said = connector("listen = \n").unwrap_err();
    assert!(said.starts_with("line 1: "), "{said}");
}

#[test]
fn names_and_ports_stand_once() {
    let said = connector(&CONNECTOR.replace("\"db\"", "\"web\"")).unwrap_err();
    assert_eq!(said, "service: \"web\" stands twice; remove one");
    let again = "[[forward]]\nlisten = \"127.0.0.1:9000\"\nservice = \"db\"\n";
    let said = agent(&format!("{AGENT}{again}")).unwrap_err();
    assert_eq!(said, "forward: \"127.0.0.1:9000\" stands twice; remove one");
}

#[test]
fn a_file_without_anything_to_do_is_a_mistake() {
    let none = CONNECTOR.split("[[service]]").next().unwrap();
    assert!(connector(none).unwrap_err().starts_with("there is no [[service]]; add one with"));
    let none = AGENT.split("[[forward]]").next().unwrap();
    assert!(agent(none).unwrap_err().starts_with("there is no [[forward]]; add one with"));
}

#[test]
fn no_connections_at_all_is_a_mistake_and_one_is_not() {
    assert!(agent(&format!("{AGENT}[limits]\nconnections = 1\n")).is_ok());
    let said = agent(&format!("{AGENT}[limits]\nconnections = 0\n")).unwrap_err();
    assert!(said.contains("write 1 or more"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let stop = AgentConfig::load(Path::new("/nonexistent/agent.toml")).unwrap_err();
    let said = stop.to_string();
    assert!(
        said.starts_with("/nonexistent/agent.toml: the configuration cannot be read"),
        "{said}"
    );
    assert!(said.ends_with("check the path given to -c"), "{said}");
}

#[test]
fn port_mapping_is_on_unless_switched_off() {
    assert!(connector(CONNECTOR).unwrap().port_mapping && agent(AGENT).unwrap().port_mapping);
    let off = |text: &str| format!("port_mapping = false\n{text}");
    assert!(!connector(&off(CONNECTOR)).unwrap().port_mapping);
    assert!(!agent(&off(AGENT)).unwrap().port_mapping);
}

//! The output of the onboarding commands: for people, for programs, and never a private key.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use common::people::{Machine, Running};
use common::{echo, run, service};
use serde_json::Value;

/// Two machines, one a device of the other's mesh, and their running programs.
struct Pair {
    home: Machine,
    away: Machine,
    exposing: Running,
    connected: Running,
    exposed: Value,
    known: Value,
}

/// Starts both with `more` and `--json`.
fn pair(more: &[&str]) -> Pair {
    let (home, away) = (Machine::new(), Machine::new());
    let target = service(echo).to_string();
    let listen = common::free_udp().to_string();
    let exposing = home.start(
        &[&["expose", &target, "--name", "web", "--listen", &listen, "--json"], more].concat(),
    );
    let exposed: Value = serde_json::from_str(&exposing.line()).unwrap();
    let invite = exposed["invite"].as_str().unwrap();
    let connected = away.start(&[&["connect", invite, "--json"], more].concat());
    let known: Value = serde_json::from_str(&connected.line()).unwrap();
    let address = known["local"].as_str().unwrap().parse().unwrap();
    common::people::assert_echoes(address, &connected);
    Pair { home, away, exposing, connected, exposed, known }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn device_of(home: &Machine) -> String {
    home.devices()[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_commands_print_for_programs_has_a_shape_with_a_name_and_a_version() {
    let Pair { home, away, exposing: _exposing, exposed, known, .. } = pair(&[]);
    assert_eq!(exposed["schema"], "adit.invite/1");
    assert_eq!(
        keys(&exposed),
        ["addresses", "device", "expires", "id", "invite", "relays", "schema", "service"]
    );
    assert_eq!(known["schema"], "adit.connect/1");
    assert_eq!(keys(&known), ["local", "name", "schema", "service"]);

    let shown = home.json(&["id", "show", "--json"]);
    assert_eq!(shown["schema"], "adit.id/1");
    assert_eq!(keys(&shown), ["devices", "known", "memberships", "mesh", "own", "schema"]);
    assert_eq!(shown["own"]["uris"][0], "adit:role:connector");
    assert_eq!(shown["devices"][0]["services"][0], "web");
    let shown = away.json(&["id", "show", "--json"]);
    assert_eq!((&shown["own"], &shown["known"][0]), (&Value::Null, &"web".into()));
    assert_eq!(shown["memberships"][0]["uris"][1], "adit:service:web");

    let made = home.json(&["invite", "new", "--json", "--device", "desk", "--invite-for", "1h"]);
    assert_eq!((&made["schema"], &made["device"]), (&"adit.invite/1".into(), &"desk".into()));
    let listed = home.json(&["invite", "list", "--json"]);
    assert_eq!(listed["schema"], "adit.invites/1");
    let states: Vec<_> =
        listed["invites"].as_array().unwrap().iter().map(|i| &i["state"]).collect();
    assert_eq!(states, ["used", "open"]);
    let id = made["id"].as_str().unwrap();
    let revoked = home.json(&["invite", "revoke", id, "--json"]);
    assert_eq!(revoked, serde_json::json!({ "schema": "adit.invite-revoked/1", "id": id }));

    for (machine, arguments) in
        [(&home, &["id", "rotate", "--json"][..]), (&away, &["id", "rotate", "web", "--json"])]
    {
        let rotated = machine.json(arguments);
        assert_eq!(rotated["schema"], "adit.id-rotated/1");
        assert!(rotated["serial"].is_string() && rotated["not_after"].is_u64(), "{rotated}");
    }
    let device = device_of(&home);
    let revoked = home.json(&["id", "revoke", &device, "--json"]);
    assert_eq!(revoked["schema"], "adit.id-revoked/1");
    assert_eq!((&revoked["id"], &revoked["connectors"]), (&device.into(), &1.into()));
    assert!(home.devices()[0]["revoked"].is_u64());
}

#[test]
fn output_for_people_has_the_state_and_the_next_step() {
    let Pair { home, away, exposing, connected, .. } = pair(&[]);
    exposing.says("as \"web\"; Ctrl-C ends it.");
    connected.says("Enrolled; from now on: adit connect web");
    let device = device_of(&home);
    let shown = home.told(&["id", "show"]);
    for part in [
        "This machine's own mesh\n  CN=device-",
        "  for     adit:role:connector\n",
        " days\n  mesh    ",
        "\nDevices\n",
        &device,
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = away.told(&["id", "show"]);
    for part in [
        "This machine as a device of another mesh\n",
        ", adit:service:web\n",
        "Saved services: web\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let made = home.run(&["invite", "new"]);
    assert!(made.stdout.starts_with(b"adit1_"));
    let said = String::from_utf8_lossy(&made.stderr);
    let expected =
        "Invite to \"web\", valid once and for 15 min; on the other machine: adit connect INVITE\n";
    assert_eq!(said, expected);
    let listed = home.told(&["invite", "list"]);
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].contains("  web  used by "), "{listed}");
    assert!(lines[0].ends_with(&format!(" ({device})")), "{listed}");
    assert!(lines[1].contains("  web  open, until 20"), "{listed}");
    let id = lines[1].split(' ').next().unwrap();
    assert_eq!(home.told(&["invite", "revoke", id]), format!("{id} is revoked\n"));
    assert!(home.told(&["id", "rotate"]).starts_with("The new identity\n  CN=device-"));
    assert!(away.told(&["id", "rotate", "web"]).contains(&format!("\n  names   {device}\n")));
    let said = home.told(&["id", "revoke", &device]);
    assert!(said.ends_with(&format!(" ({device}) is revoked, and cut off\n")), "{said}");
}

#[test]
fn a_machine_without_an_identity_gets_the_next_step() {
    let machine = Machine::new();
    let shown = machine.run(&["id", "show"]);
    assert!(shown.status.success() && shown.stdout.is_empty());
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(said.contains("adit expose 3000, or adit connect INVITE"), "{said}");
    for arguments in
        [&["id", "rotate"][..], &["id", "revoke", "x"], &["invite", "new"], &["invite", "list"]]
    {
        let said = machine.fails(arguments, 2);
        assert!(
            said.ends_with("there is no mesh here yet; make one with: adit expose 3000"),
            "{said}"
        );
    }
    let said = machine.fails(&["connect", "web"], 2);
    assert_eq!(
        said,
        "there is no saved service \"web\"; ask its owner for an invite: adit invite new"
    );
    assert!(!machine.home().exists(), "asking creates nothing");
}

#[test]
fn a_verified_configuration_is_explained() {
    let Pair { home, away, .. } = pair(&[]);
    let text = "listen = \"0.0.0.0:0\"\n[[service]]\nname = \"web\"\ntcp = \"127.0.0.1:80\"\n\
                [[service]]\nname = \"db\"\ntcp = \"127.0.0.1:81\"\nallow = [\"laptop\"]\n";
    let file = home.directory.write("c.toml", text);
    let file = file.to_str().unwrap();
    let meant = home.json(&["config", "verify", file, "--json"]);
    assert_eq!(meant["schema"], "adit.config/1");
    assert_eq!(keys(&meant), ["does", "file", "identity", "role", "schema"]);
    assert_eq!(
        (&meant["role"], &meant["does"][0]),
        (&"connector".into(), &"listens on 0.0.0.0:0 (UDP)".into())
    );
    let told = home.told(&["config", "verify", file]);
    assert_eq!(
        told,
        format!(
            "{file}: a good connector's file\n  identity: this machine's own mesh\n  \
             listens on 0.0.0.0:0 (UDP)\n  exposes 127.0.0.1:80 as \"web\" to devices invited to it\n  \
             exposes 127.0.0.1:81 as \"db\" to laptop\n"
        )
    );
    let text =
        "[connector]\nknown = \"web\"\n[[forward]]\nlisten = \"127.0.0.1:9\"\nservice = \"web\"\n";
    let file = away.directory.write("a.toml", text);
    let meant = away.json(&["config", "verify", file.to_str().unwrap(), "--json"]);
    assert_eq!(meant["role"], "agent");
    assert_eq!(meant["identity"], "this machine's certificate in the connector's mesh");
    let text = text.replace("known = \"web\"", "known = \"wep\"");
    let file = away.directory.write("a.toml", &text);
    let said = away.fails(&["config", "verify", file.to_str().unwrap()], 2);
    assert_eq!(said, "there is no saved service \"wep\"; saved here: web");
}

/// Returns the words that a help text lists under "Commands:".
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|l| l.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|w| !w.is_empty() && w != "help")
        .collect()
}

#[test]
fn every_command_has_a_help_with_an_example() {
    let mut all = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = all.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run(&arguments);
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let line = format!("  adit {}", command.join(" "));
        let example = help.split("Example").nth(1).unwrap_or_default();
        assert!(example.contains(line.trim_end()), "{command:?}: {help}");
        seen += 1;
        all.extend(commands(&help).into_iter().map(|sub| [command.clone(), vec![sub]].concat()));
    }
    assert!(seen >= 19, "{seen} commands");
}

/// Returns every line of the private keys in a machine's home.
fn secrets(machine: &Machine) -> Vec<String> {
    let mut all = Vec::new();
    for (_, contents) in machine.files() {
        let text = String::from_utf8_lossy(&contents).into_owned();
        for block in text.split("-----BEGIN PRIVATE KEY-----").skip(1) {
            let body = block.split("-----END").next().unwrap();
            all.extend(
                body.lines().map(str::trim).filter(|line| line.len() > 8).map(str::to_owned),
            );
        }
    }
    all
}

#[test]
fn no_private_key_is_ever_shown_and_the_invite_on_stdout_alone() {
    let Pair { home, away, exposing, connected, exposed, .. } = pair(&["-vv"]);
    let mut secrets = [secrets(&home), secrets(&away)].concat();
    assert!(secrets.len() >= 6, "{} lines of keys", secrets.len());
    let device = device_of(&home);
    let more: [(&Machine, &[&str]); 8] = [
        (&home, &["id", "show", "--json", "-vv"]),
        (&away, &["id", "show", "--json", "-vv"]),
        (&home, &["invite", "list", "--json", "-vv"]),
        (&home, &["id", "rotate", "--json", "-vv"]),
        (&away, &["id", "rotate", "web", "--json", "-vv"]),
        (&home, &["status", "--json", "-vv"]),
        (&away, &["status", "--json", "-vv"]),
        (&home, &["id", "revoke", &device, "--json", "-vv"]),
    ];
    let mut shown = String::new();
    for (machine, arguments) in more {
        let output = machine.run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        shown += &String::from_utf8_lossy(&output.stdout);
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    secrets.extend(self::secrets(&home));
    secrets.extend(self::secrets(&away));
    let logs = exposing.log() + &connected.log();
    assert!(logs.contains("TRACE") || logs.contains("DEBUG"), "they were to say all they can");
    for secret in &secrets {
        assert!(
            !shown.contains(secret) && !logs.contains(secret),
            "a line of a private key is shown"
        );
    }
    let invite = exposed["invite"].as_str().unwrap();
    assert!(!logs.contains(&invite[6..]) && !shown.contains(&invite[6..]), "the invite is shown");
}

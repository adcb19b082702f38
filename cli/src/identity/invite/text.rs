//! An invite as bytes and as text (docs/protocol.md, "Invites").
//!
//! Reading accepts any input and never panics. It distinguishes text that is no invite from an
//! invite that was cut, was changed, or is of a later version.

use adit_tokio::core::ServiceName;
use adit_tokio::core::tls::KeyDigest;
use data_encoding::BASE64URL_NOPAD;
use rustls_pki_types::DnsName;

use super::{Invite, Secret};
use crate::address::{HostPort, MAX_ADDRESSES, RelayAddress, place, place_of};
use crate::config::MAX_RELAYS;

/// What an invite of any version begins with.
const MARK: &str = "adit";

/// The version of the format, which is part of the prefix.
const VERSION: &str = "1";

/// Prefix of every invite.
pub(super) const PREFIX: &str = "adit1_";

/// Bytes of the checksum at the end: enough to detect a mistake, and no protection against intent.
const CHECKSUM: usize = 4;

/// Longest text accepted: eight addresses and four relays of the longest names.
const MAX_TEXT: usize = 8 * 1024;

pub(super) fn write(invite: &Invite) -> String {
    let mut out = Vec::with_capacity(160);
    out.extend(invite.expires.to_be_bytes());
    out.extend(invite.secret.0);
    out.extend(invite.ca.0);
    out.extend(invite.port.unwrap_or(0).to_be_bytes());
    put(&mut out, &invite.connector);
    put(&mut out, invite.service.as_str());
    for address in invite.addresses.iter().take(MAX_ADDRESSES) {
        put(&mut out, &address.to_string());
    }
    if !invite.relays.is_empty() {
        // No address is empty: an empty one ends the list.
        put(&mut out, "");
    }
    for relay in invite.relays.iter().take(MAX_RELAYS) {
        out.extend(relay.key.0);
        put(&mut out, &place(&relay.at, relay.tcp));
    }
    seal(out)
}

/// Returns the text of an invite with these contents, valid or not.
pub(crate) fn seal(mut contents: Vec<u8>) -> String {
    let checksum = blake3::hash(&contents);
    contents.extend(&checksum.as_bytes()[..CHECKSUM]);
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&contents))
}

fn put(out: &mut Vec<u8>, text: &str) {
    // Names and addresses are DNS names at most, which have up to 253 bytes.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend(&text.as_bytes()[..usize::from(length)]);
}

/// Returns where an invite of any version begins in a text, and the digits of its version. What
/// stands before it, such as a quotation mark or the command that was pasted with it, is no part.
pub(super) fn begin(text: &str) -> Option<(usize, &str)> {
    text.match_indices(MARK).find_map(|(at, _)| {
        let is_in_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.".contains(c));
        let (version, _) = text[at + MARK.len()..].split_once('_')?;
        let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !is_in_word).then_some((at, version))
    })
}

/// Returns the version of the format, if it is a later one than this program reads.
pub(super) fn later_version(text: &str) -> Option<&str> {
    begin(text).map(|(_, version)| version).filter(|version| *version != VERSION)
}

/// Returns true for what terminals, mail and chats add within a text: white space and characters
/// without a width.
fn is_layout(c: char) -> bool {
    let without_width = ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}'];
    c.is_whitespace() || without_width.contains(&c)
}

pub(super) fn read(text: &str) -> Result<Invite, String> {
    if text.len() > MAX_TEXT {
        return Err("this is too long for an invite".into());
    }
    let Some((at, version)) = begin(text) else {
        return Err(format!("this is no invite, which begins with \"{PREFIX}\""));
    };
    if version != VERSION {
        return Err("this invite is of another version of adit, which this one cannot read".into());
    }
    let body = &text[at + PREFIX.len()..];
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || is_layout(c);
    let whole = &body[..body.find(|c| !is_part(c)).unwrap_or(body.len())];
    // Options of a pasted command may follow, in the same characters. The checksum decides.
    let before = |mark: &str| whole.split_once(mark).map_or(whole, |(before, _)| before);
    let word = whole.trim_start_matches(is_layout).split(is_layout).next().unwrap_or(whole);
    let first = decode(whole);
    if first.is_ok() {
        return first;
    }
    [before(" --"), before(" -"), word]
        .into_iter()
        .find_map(|part| decode(part).ok())
        .map_or(first, Ok)
}

fn decode(body: &str) -> Result<Invite, String> {
    let body: String = body.chars().filter(|c| !is_layout(*c)).collect();
    let damaged = || "this invite is damaged: a part is missing, or was changed".to_owned();
    let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| damaged())?;
    let (contents, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(damaged)?;
    if blake3::hash(contents).as_bytes().first_chunk() != Some(checksum) {
        return Err(damaged());
    }
    let mut reader = Reader(contents);
    fields(&mut reader).ok_or_else(|| "this invite says nothing that can be understood".to_owned())
}

fn fields(reader: &mut Reader<'_>) -> Option<Invite> {
    let expires = u64::from_be_bytes(reader.array()?);
    let secret = Secret(reader.array()?);
    let ca = KeyDigest(reader.array()?);
    let port = u16::from_be_bytes(reader.array()?);
    // It is shown to people, and dialled as the name in a certificate.
    let connector = DnsName::try_from(reader.text()?).ok()?.as_ref().to_owned();
    let service: ServiceName = reader.text()?.parse().ok()?;
    let mut addresses = Vec::new();
    while !reader.0.is_empty() {
        let text = reader.text()?;
        if text.is_empty() {
            // The end of the addresses begins the relays.
            (!reader.0.is_empty()).then_some(())?;
            break;
        }
        (addresses.len() < MAX_ADDRESSES).then_some(())?;
        addresses.push(HostPort::try_from(text.to_owned()).ok()?);
    }
    let mut relays = Vec::new();
    while !reader.0.is_empty() {
        (relays.len() < MAX_RELAYS).then_some(())?;
        let key = KeyDigest(reader.array()?);
        let (at, tcp) = place_of(reader.text()?)?;
        relays.push(RelayAddress { at, tcp, key });
    }
    let port = (port != 0).then_some(port);
    (!addresses.is_empty() || !relays.is_empty()).then_some(Invite {
        secret,
        ca,
        connector,
        service,
        port,
        addresses,
        relays,
        expires,
    })
}

/// Reads fields from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            secret: Secret([7; 32]),
            ca: KeyDigest([9; 32]),
            connector: "device-0123456789ab".into(),
            service: "web".parse().unwrap(),
            port: Some(3000),
            addresses: ["192.0.2.7:4433", "[2001:db8::7]:4433", "home.example:9"]
                .map(|text| HostPort::try_from(text.to_owned()).unwrap())
                .to_vec(),
            relays: Vec::new(),
            expires: 1_800_000_900,
        }
    }

    fn relay(port: u16) -> RelayAddress {
        let at = HostPort::try_from(format!("relay.example:{port}")).unwrap();
        RelayAddress { at, tcp: 442 + port, key: KeyDigest([8; 32]) }
    }

    #[test]
    fn an_invite_survives_being_written_and_read() {
        let invite = invite();
        assert_eq!(read(&write(&invite)), Ok(invite.clone()));
        assert_eq!(read(&write(&Invite { port: None, ..invite.clone() })).unwrap().port, None);
    }

    #[test]
    fn relays_stand_behind_the_addresses_or_in_their_place() {
        let both = Invite { relays: vec![relay(1), relay(2)], ..invite() };
        assert_eq!(read(&write(&both)), Ok(both.clone()));
        let alone = Invite { addresses: Vec::new(), ..both };
        assert_eq!(read(&write(&alone)), Ok(alone));
    }

    #[test]
    fn four_relays_are_read_and_a_fifth_or_none_where_one_has_to_be_is_not() {
        let contents = |relays: u16| {
            let whole = Invite { relays: (1..=relays).map(relay).collect(), ..invite() };
            let text = write(&whole);
            let bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
            bytes[..bytes.len() - CHECKSUM].to_vec()
        };
        assert_eq!(read(&seal(contents(4))).unwrap().relays.len(), 4);
        let mut five = contents(4);
        five.extend([8; 32]);
        put(&mut five, "relay.example:5");
        let mut none = contents(0);
        put(&mut none, "");
        for wrong in [five, none] {
            assert!(read(&seal(wrong)).unwrap_err().contains("nothing that can be understood"));
        }
    }

    #[test]
    fn the_protocol_document_shows_this_invite() {
        let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        if package.join("Cargo.toml.orig").exists() {
            eprintln!("SKIPPED: a package has no docs/protocol.md");
            return;
        }
        let document = std::fs::read_to_string(package.join("../docs/protocol.md")).unwrap();
        let shown: String = document.split_whitespace().collect();
        let text = write(&invite());
        assert!(shown.contains(&format!("```text{text}```")), "{text}");
    }

    #[test]
    fn lines_and_spaces_that_a_terminal_added_do_no_harm() {
        let text = write(&invite());
        let (one, other) = text.split_at(40);
        assert_eq!(read(&format!("  {one}\r\n   {other}\n")), Ok(invite()));
    }

    #[test]
    fn quotation_marks_and_invisible_characters_do_no_harm() {
        let text = write(&invite());
        let (one, other) = text.split_at(40);
        for pasted in [
            format!("\"{text}\""),
            format!("'{text}'."),
            format!("`{text}`"),
            format!("<{text}>"),
            format!("\u{201c}{text}\u{201d}"),
            format!("\u{feff}{text}"),
            format!("{one}\u{200b}{other}\u{200b}"),
            format!("{one}\n{other}"),
        ] {
            assert_eq!(read(&pasted), Ok(invite()), "{pasted}");
        }
    }

    #[test]
    fn the_whole_command_may_be_pasted() {
        let text = write(&invite());
        for pasted in [
            format!("adit connect {text}"),
            format!("$ ./adit --home here connect {text} --local 8080"),
            format!("adit connect '{text}' -v"),
            format!("Invite to \"web\", valid once:\n{text}\n"),
        ] {
            assert_eq!(read(&pasted), Ok(invite()), "{pasted}");
        }
    }

    #[test]
    fn an_invite_truncated_anywhere_is_damaged() {
        let text = write(&invite());
        for end in PREFIX.len()..text.len() {
            let wrong = read(&text[..end]).unwrap_err();
            assert!(wrong.contains("damaged"), "{end}: {wrong}");
        }
    }

    #[test]
    fn one_with_any_character_changed_is_refused() {
        let text = write(&invite());
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(read(std::str::from_utf8(&changed).unwrap()).is_err(), "{at}");
        }
    }

    #[test]
    fn other_texts_have_errors_of_their_own() {
        assert!(read("adit2_AAAA").unwrap_err().contains("another version"));
        assert!(read("web").unwrap_err().contains("no invite"));
        assert!(read("").unwrap_err().contains("no invite"));
        assert!(read(&"a".repeat(MAX_TEXT + 1)).unwrap_err().contains("too long"));
        assert!(read(PREFIX).unwrap_err().contains("damaged"));
    }

    #[test]
    fn an_invite_without_an_address_or_with_nine_is_none() {
        let mut none = invite();
        none.addresses.clear();
        assert!(read(&write(&none)).unwrap_err().contains("nothing that can be understood"));
        let address = invite().addresses[0].clone();
        let mut out = invite();
        out.addresses = vec![address; MAX_ADDRESSES];
        assert_eq!(read(&write(&out)).unwrap().addresses.len(), MAX_ADDRESSES);
        let bytes = BASE64URL_NOPAD.decode(&write(&out).as_bytes()[PREFIX.len()..]).unwrap();
        let mut nine = bytes[..bytes.len() - CHECKSUM].to_vec();
        put(&mut nine, "192.0.2.7:4433");
        assert!(read(&seal(nine)).unwrap_err().contains("nothing that can be understood"));
    }

    #[test]
    fn a_connector_is_named_by_a_name_that_certificates_can_carry() {
        for (name, is_good) in
            [("device-1", true), ("", false), ("a b", false), ("a\u{1b}[2J", false)]
        {
            let text = write(&Invite { connector: name.into(), ..invite() });
            assert_eq!(read(&text).is_ok(), is_good, "{name:?}");
        }
    }
}

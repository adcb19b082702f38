//! Turns a parser's error into a sentence: which key, which line, what is wrong, what to write.

use serde::de::DeserializeOwned;

/// Minimum similarity of a word to a known one to be taken for a typing error.
const SIMILAR: f64 = 0.7;

/// Parses TOML.
///
/// # Errors
/// One sentence, without the file's name.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| sentence(text, "", error.message(), error.span()))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        sentence(text, &path, inner.message(), inner.span())
    })
}

fn sentence(text: &str, path: &str, message: &str, span: Option<std::ops::Range<usize>>) -> String {
    let line = span.map(|span| text.get(..span.start).map_or(1, |t| t.matches('\n').count() + 1));
    let place = match (path, line) {
        ("" | ".", Some(line)) => format!("line {line}"),
        ("" | ".", None) => "the file".to_owned(),
        (path, Some(line)) => format!("line {line}: {path}"),
        (path, None) => path.to_owned(),
    };
    let what = match quoted(message).as_slice() {
        [unknown, known @ ..] if message.starts_with("unknown field") => {
            return format!("{place}: unknown key \"{unknown}\"; {}", suggestion(unknown, known));
        }
        [missing] if message.starts_with("missing field") => {
            return format!(
                "{place}: the key \"{missing}\" is missing; add it{}",
                example(missing)
            );
        }
        _ => message.lines().collect::<Vec<_>>().join(", "),
    };
    let key = path.rsplit('.').next().unwrap_or(path);
    let next = example(key);
    if next.is_empty() || what.contains("; ") {
        format!("{place}: {what}")
    } else {
        format!("{place}: {what}; write it{next}")
    }
}

/// Returns the words between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn suggestion(unknown: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(unknown, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((similarity, candidate)) if similarity >= SIMILAR => {
            format!("did you mean \"{candidate}\"?")
        }
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "remove it".to_owned(),
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "listen" => " like listen = \"127.0.0.1:4433\"",
        "tcp" => " like tcp = \"127.0.0.1:8080\"",
        "unix" => " like unix = \"/run/app.sock\"",
        "address" => " like address = \"connector.example:4433\"",
        "name" => " like name = \"web\"",
        "service" => " like service = \"web\"",
        "ca" => " like ca = \"ca.pem\"",
        "certificate" => " like certificate = \"device.pem\"",
        "key" => " like key = \"device.key\"",
        "tls" => " as a section [tls] with ca, certificate and key",
        "connector" => " as a section [connector] with address and name",
        "allow" => " like allow = [\"laptop\"]",
        _ => "",
    }
}

//! `adit forget`: removes a saved service from this machine.

use crate::base::exit::ExitError;
use crate::base::output;
use crate::homedir::Home;
use crate::identity::saved_service::SavedService;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit forget web                 a service that this machine was invited to
  adit id forget laptop           a revoked device, on the machine that exposes

This machine's certificate is removed with the last service of its connector. The connector is not
asked: there, adit id revoke ends the certificate as well.")]
pub(crate) struct ForgetArgs {
    /// The saved service
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Removes the service.
///
/// # Errors
/// Why not.
pub(crate) fn run(arguments: &ForgetArgs, home: &Home) -> Result<(), ExitError> {
    let name = arguments.name.trim();
    SavedService::forget(home, name)?;
    if arguments.json {
        return output::json("adit.forgotten/1", &serde_json::json!({ "name": name }));
    }
    output::text_line(&format!("{name} is forgotten"))
}

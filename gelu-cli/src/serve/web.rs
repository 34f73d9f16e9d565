//! The way in for browsers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use gelu_service::{DEFAULT_WEB_PORT, ServiceError, Web};

#[derive(Debug, Args)]
#[command(next_help_heading = "Browsers")]
pub(super) struct WebArgs {
    /// Serve browsers as well, with the page in this folder (gelu-web/build makes one).
    #[arg(long, value_name = "DIR")]
    web: Option<PathBuf>,
    /// Where browsers are answered, over HTTPS where there are certificates; without --web there is no page, only what pages of
    /// --web-origin and programs need [default with --web: 127.0.0.1:7480].
    #[arg(long, value_name = "ADDRESS:PORT")]
    web_listen: Option<SocketAddr>,
    /// Let pages that another server serves use the models, by their origin, such as `https://pages.example`.
    #[arg(long, value_name = "URL", num_args = 1..)]
    web_origin: Vec<String>,
    /// Ask browsers for no certificate: whoever reaches --web-listen may use the models. To --sessions-per-client, --budget and
    /// --rate, all those without a certificate are one client (SECURITY.md).
    #[arg(long)]
    web_open: bool,
}

impl WebArgs {
    /// What browsers get, if anything.
    pub(super) fn web(&self) -> Result<Option<Web>, ServiceError> {
        let usual = || self.web.as_ref().map(|_| (Ipv4Addr::LOCALHOST, DEFAULT_WEB_PORT).into());
        let Some(listen) = self.web_listen.or_else(usual) else { return Ok(None) };
        let mut web = Web::new(listen);
        if let Some(folder) = &self.web {
            web = web.with_page(folder)?;
        }
        for origin in &self.web_origin {
            web = web.with_origin(origin)?;
        }
        Ok(Some(if self.web_open { web.open_to_all() } else { web }))
    }
}

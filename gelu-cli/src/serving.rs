//! What commands that serve have in common: certificates, the log, and a stop that lets work end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use gelu_service::{Fingerprint, ServerSecurity, Service};
use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::output::{flush, note, outln};
use crate::tls_args::{TlsFiles, credentials};

/// How connections are protected, what is told of the work, and how it ends.
#[derive(Debug, Args)]
pub(crate) struct ServingArgs {
    /// The server's certificate, and those between it and its authority, in PEM.
    #[arg(long, value_name = "FILE.pem", help_heading = "Security")]
    tls_cert: Option<PathBuf>,
    /// Its private key, which only its owner may be able to read.
    #[arg(long, value_name = "FILE.key", help_heading = "Security")]
    tls_key: Option<PathBuf>,
    /// The authority that clients' certificates must come from: who has one may use the models.
    #[arg(long, value_name = "FILE.pem", help_heading = "Security")]
    client_ca: Option<PathBuf>,
    /// Without TLS, for clients on this machine only.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "client_ca"], help_heading = "Security")]
    insecure: bool,
    /// Seconds that work has to end when the server is told to stop (Ctrl-C or SIGTERM).
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Limits")]
    grace: u32,
    /// Answer Prometheus at http://ADDRESS:PORT/metrics, without TLS.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// How the log on standard error is written. It never holds inputs, outputs, weights, keys or ciphertexts.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
    /// What is logged.
    #[arg(long, value_enum, default_value = "info")]
    log_level: LogLevel,
    /// Print where it listens as one JSON object.
    #[arg(long)]
    json: bool,
}

/// How a server protects its connections, and the fingerprint of its key.
pub(crate) struct Security {
    security: ServerSecurity,
    fingerprint: Option<Fingerprint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// A line for a person.
    Text,
    /// A line of JSON for a program.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    /// Nothing.
    Off,
    /// Work that broke off, and refused connections.
    Warn,
    /// Every conversation besides.
    Info,
    /// Every connection besides, and a worker's every shard.
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

impl ServingArgs {
    pub(crate) fn is_insecure(&self) -> bool {
        self.insecure
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }

    /// The log goes to standard error, so that standard output keeps what the command answers.
    pub(crate) fn start_log(&self) {
        let filter = Targets::new().with_target("gelu_service", LevelFilter::from(self.log_level));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        let registry = tracing_subscriber::registry().with(filter);
        // Another log of this process would stay.
        let _ = match self.log {
            LogForm::Text => registry.with(lines.with_ansi(false)).try_init(),
            LogForm::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        };
    }

    pub(crate) fn security(&self) -> anyhow::Result<Security> {
        let files = TlsFiles {
            certificate: (self.tls_cert.as_deref(), "--tls-cert"),
            key: (self.tls_key.as_deref(), "--tls-key"),
            authority: (self.client_ca.as_deref(), "--client-ca"),
        };
        let credentials = credentials(&files, self.insecure)?;
        let fingerprint = credentials.as_ref().map(|credentials| credentials.fingerprint()).transpose()?;
        let security = credentials.map_or(ServerSecurity::Loopback, ServerSecurity::Tls);
        Ok(Security { security, fingerprint })
    }

    pub(crate) fn with_metrics(&self, service: Service) -> Service {
        match self.metrics {
            Some(address) => service.with_metrics(address),
            None => service,
        }
    }

    /// Serves until Ctrl-C or SIGTERM, and says where.
    pub(crate) fn run(
        &self,
        service: Service,
        listen: SocketAddr,
        Security { security, fingerprint }: &Security,
        names: &[String],
    ) -> anyhow::Result<()> {
        let (asked, stop) = channel();
        ctrlc::set_handler(move || {
            // The second time the receiver has gone.
            if asked.send(()).is_err() {
                std::process::exit(crate::train::INTERRUPTED.into());
            }
        })
        .context("cannot take note of Ctrl-C")?;
        let running = service.start(listen, security)?;
        let address = running.address();
        let scheme = if fingerprint.is_some() { "https" } else { "http" };
        let web = running.web_address().map(|address| format!("{scheme}://{address}"));
        if self.json {
            let fingerprint = fingerprint.map(|fingerprint| fingerprint.to_string());
            outln!(
                "{}",
                json!({
                    "address": address,
                    "web": web,
                    "metrics": running.metrics_address(),
                    "fingerprint": fingerprint,
                    "models": names,
                })
            )?;
        } else {
            outln!("models       {}", names.join(", "))?;
            if let Some(fingerprint) = fingerprint {
                outln!("fingerprint  {fingerprint}")?;
            }
            if let Some(metrics) = running.metrics_address() {
                outln!("metrics      http://{metrics}/metrics")?;
            }
            if let Some(web) = web {
                outln!("browsers     {web}")?;
            }
            outln!("listening    {address}")?;
        }
        flush()?;
        // The handler lives as long as the process.
        let _ = stop.recv();
        drop(stop);
        note!("stopping: work has {} s to end; Ctrl-C once more stops at once", self.grace);
        running.stop();
        Ok(())
    }
}

//! The command line: parses it, sets up logging, runs one command, turns its outcome into an exit code.
//!
//! ```text
//!   check, explain ─────▶ folder of SQL ──▶ catalog             no engine, nothing is read
//!   run, demo, verify ──▶ folder of SQL ──▶ lake and servers    the whole of livelake-actors in this process
//!   sql, subscribe, export, verify URL ──▶ HTTP ──▶ a lake that runs elsewhere
//! ```
//!
//! Exit codes: 0 done; 1 failed while running; 2 wrong usage or a lake that does not plan; 3 an answer that differs (`verify`).

mod commands;
mod memory;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::commands::{Command, Failure};

/// SQL views over change streams and files, always up to date, committed to Apache Iceberg.
#[derive(Debug, Parser)]
#[command(name = "livelake", version, about, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written; RUST_LOG chooses which.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,livelake=info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("avx2") {
        eprintln!(
            "this build of livelake needs a processor with AVX2 (2013 or newer): build it with RUSTFLAGS=\"\" for an older one"
        );
        return ExitCode::from(1);
    }
    memory::give_back_soon();
    let arguments = Arguments::parse();
    log(arguments.log_format);
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.lines().iter().for_each(|line| eprintln!("{line}"));
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                Failure::Running(_) => ExitCode::from(1),
                Failure::Differs(_) => ExitCode::from(3),
            }
        }
    }
}

//! `livelake demo`.

use std::path::PathBuf;

use livelake_actors::sources::generator::lake::files;

use super::{Failure, running};

/// Write and run the New York taxi lake on the built-in generator.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Trips a second, evenly; without it two a second that come and go with day and week.
    #[arg(long)]
    rate: Option<f64>,
    /// The lake's folder; it is written if it is not there.
    #[arg(long, default_value = "livelake-demo")]
    dir: PathBuf,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Demo {
    /// Runs it until a signal.
    pub fn run(self) -> Result<(), Failure> {
        let is_new = match std::fs::read_dir(&self.dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(running(format!("cannot read {}: {error}", self.dir.display()))),
        };
        if is_new {
            std::fs::create_dir_all(&self.dir)
                .map_err(|error| running(format!("cannot make {}: {error}", self.dir.display())))?;
            for (name, content) in files(self.rate) {
                let path = self.dir.join(name);
                std::fs::write(&path, content.as_ref())
                    .map_err(|error| running(format!("cannot write {}: {error}", path.display())))?;
            }
        } else if self.rate.is_some() {
            eprintln!("{} holds a lake already: it runs as it is, --rate is not looked at", self.dir.display());
        }
        println!("lake {}", self.dir.display());
        super::run::Run::of(self.dir, self.sets).run()
    }
}

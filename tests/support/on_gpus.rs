//! A daemon on a machine whose GPUs are the driver's double.

use std::process::Command;

use crate::daemon::Daemon;
use crate::double::Driver;

/// A daemon whose configuration names the double's folder. `worker`: more lines of `[worker]`.
pub(crate) fn serve(driver: &Driver, worker: &str, channels: &str) -> Daemon {
    let mut environment = Command::new("true");
    driver.env(&mut environment);
    let environment: Vec<(String, String)> = environment
        .get_envs()
        .map(|(name, value)| (name.display().to_string(), value.expect("set").display().to_string()))
        // The folder comes from the configuration, not from the loader's path.
        .filter(|(name, _)| name != "LD_LIBRARY_PATH")
        .collect();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let more = format!("[worker]\ndriver_folder = \"{}\"\n{worker}", driver.folder().display());
    Daemon::start_with(&more, channels, &environment)
}

/// A CPU plays the cards, so what they do takes its time.
pub(crate) const PATIENT: &str = "gpu_patience_ms = 10000\n";

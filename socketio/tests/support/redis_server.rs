//! A Redis server of a test's own, on a Unix socket in a directory of its own. Stopped when it is dropped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Set where a missing `redis-server` is a failure.
const REQUIRED: &str = "ADJOURN_REQUIRE_REDIS";
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct RedisServer {
    directory: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// Starts one with additional arguments. `None`, said on stderr: there is no `redis-server`.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("adjourn-redis-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        match spawn(&directory, &arguments) {
            Ok(child) => {
                let server = Self { directory, arguments, child };
                server.await_start();
                Some(server)
            }
            Err(error) => {
                assert!(std::env::var_os(REQUIRED).is_none(), "redis-server cannot be started: {error}");
                eprintln!(
                    "SKIPPED: redis-server cannot be started ({error}); {REQUIRED}=1 makes this a failure"
                );
                None
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("redis.sock")
    }

    fn await_start(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < end, "redis-server did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[expect(dead_code, reason = "not every test that has a server stops it")]
impl RedisServer {
    /// SIGKILL. Nothing is saved.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it again in the same directory, with the data that it has saved there.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.directory, &self.arguments).expect("it was started before");
        self.await_start();
    }

    /// Forgets what was saved.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.directory.join("appendonlydir"));
        let _ = std::fs::remove_file(self.directory.join("dump.rdb"));
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &PathBuf, arguments: &[String]) -> std::io::Result<Child> {
    // Valkey, if that is what is tested.
    Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir"])
        .arg(directory)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

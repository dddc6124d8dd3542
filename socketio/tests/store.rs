//! The suite that every store passes, written against the traits, and what SQLite alone promises.

#[path = "store/disk.rs"]
mod disk;
#[path = "store/log.rs"]
mod log;
#[path = "store/once.rs"]
mod once;
#[cfg(feature = "redis")]
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "store/sessions.rs"]
mod sessions;
#[cfg(feature = "redis")]
#[path = "store/shared.rs"]
mod shared;
#[cfg(feature = "sqlite")]
#[path = "store/sqlite.rs"]
mod sqlite;

/// Runs each test on each store.
macro_rules! on_every_store {
    ($($(#[$meta:meta])* fn $name:ident($disk:ident) $body:block)*) => {
        $(fn $name($disk: &dyn crate::disk::Disk) $body)*
        mod memory {
            $(#[test] fn $name() { super::$name(&crate::disk::Memory::default()); })*
        }
        #[cfg(feature = "redis")]
        mod redis {
            $(#[test] fn $name() {
                if let Some(disk) = crate::disk::Redis::start() {
                    super::$name(&disk);
                }
            })*
        }
        #[cfg(feature = "sqlite")]
        mod file {
            $(#[test] fn $name() { super::$name(&crate::disk::SqliteFile::new(stringify!($name))); })*
        }
        #[cfg(feature = "sqlite")]
        mod file_synchronous {
            $(#[test] fn $name() {
                super::$name(&crate::disk::SqliteFile::new(concat!(stringify!($name), "-full")).full());
            })*
        }
    };
}
pub(crate) use on_every_store;

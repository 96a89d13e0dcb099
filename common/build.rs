//! Rebuilds when a migration changes: they are compiled into this crate.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}

//! Writes the inputs that the fuzzers begin with, and those that are kept, to `corpus/<target>/`.

use std::{fs, io, path::Path};

use testkit::{kept, targets::seeds};

fn main() -> io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, inputs) in seeds::all() {
        fs::create_dir_all(corpora.join(target))?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(corpora.join(target).join(format!("seed-{number:03}")), input)?;
        }
        println!("{target}: {} seeds", inputs.len());
    }
    for (target, inputs) in adjourn_fuzz::socketio::SEEDS {
        fs::create_dir_all(corpora.join(target))?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(corpora.join(target).join(format!("seed-{number:03}")), input)?;
        }
    }
    for (number, (target, _, input)) in kept::inputs().iter().enumerate() {
        fs::write(corpora.join(target).join(format!("kept-{number:03}")), input)?;
    }
    Ok(())
}

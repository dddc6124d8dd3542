//! Writes the inputs that the fuzzers begin with, and those that are kept, to `corpus/<target>/`.

use std::{fs, io, path::Path};

use adjourn_fuzz::targets::seeds;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, inputs) in seeds::all() {
        let corpus = root.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:03}")), input)?;
        }
        let mut kept = 0;
        for entry in fs::read_dir(root.join("inputs").join(target)).into_iter().flatten() {
            let entry = entry?;
            fs::copy(entry.path(), corpus.join(entry.file_name()))?;
            kept += 1;
        }
        println!("{target}: {} seeds, {kept} kept inputs", inputs.len());
    }
    Ok(())
}

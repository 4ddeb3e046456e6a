//! Builds the product's programs and images. The tag is made of what is in them, so that a change rolls pods and nothing else does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{program::Program, tools};

/// The images that the product consists of, and the one with the sites that are scraped.
pub const NAMES: [&str; 4] = ["platform", "browser", "data", "sites"];
/// Where they are in the image store of this machine.
pub const REGISTRY: &str = "localhost/selextract";

const TIMEOUT: Duration = Duration::from_mins(40);

/// How programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Fast to compile: tests, CI and the demo.
    Development,
    /// Fast to run: what is measured and shipped.
    Release,
}

/// The images of one state of the sources.
pub struct Built {
    /// Their common tag.
    pub tag: String,
}

impl Built {
    /// The full names of all images in a registry.
    pub fn names(&self, registry: &str) -> Vec<String> {
        names(registry, &self.tag)
    }
}

/// The full names of all images of a tag in a registry.
pub fn names(registry: &str, tag: &str) -> Vec<String> {
    NAMES.iter().map(|name| format!("{registry}/{name}:{tag}")).collect()
}

/// Builds what changed, with the profile that tests and CI use.
pub fn build() -> Result<Built> {
    build_with(Profile::Development)
}

/// Builds what changed.
pub fn build_with(profile: Profile) -> Result<Built> {
    let root = tools::repository()?;
    let (flags, folder): (&[&str], _) = match profile {
        Profile::Development => (&["--bins"], "images/bin"),
        Profile::Release => (&["--bins", "--release"], "images/bin-release"),
    };
    let binaries = stage_programs(&build_programs(&root, flags)?, folder)?;
    let tag = tag_of(&root, &binaries)?;
    build_images(&root, &tag, &binaries, &NAMES)
}

/// The product's programs, built for release; the folder that they are in.
pub fn release_programs() -> Result<PathBuf> {
    stage_programs(
        &build_programs(&tools::repository()?, &["--bins", "--release"])?,
        "images/bin-release",
    )
}

/// The next version of images that were just built: the same programs, but the migration knows one file more, which adds a table.
///
/// Migrations are compiled into the program that applies them, so the sources are copied beside the cache and that program is built there.
pub fn build_next(current: &str) -> Result<Built> {
    let root = tools::repository()?;
    let sources = tools::cache()?.join("next-version");
    copy_sources(&root, &sources)?;
    let migration = sources.join("migrations/9999_next_version.sql");
    fs::write(migration, "CREATE TABLE next_version (id bigint PRIMARY KEY);\n")?;
    let mut programs = build_programs(&sources, &["--bin", "selextract-keeper"])?;
    let staged = tools::cache()?.join("images/bin");
    programs.extend(
        files_below(&staged)?
            .into_iter()
            .filter(|path| !path.ends_with("selextract-keeper")),
    );
    let binaries = stage_programs(&programs, "images/bin-next")?;
    build_images(&root, &format!("{current}-next"), &binaries, &["platform", "browser"])
}

fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    drop(fs::remove_dir_all(to));
    let files = Program::line("git ls-files -z --cached --others --exclude-standard")
        .folder(from)
        .output()?;
    for file in files.split('\0').filter(|file| from.join(file).is_file()) {
        let target = to.join(file);
        fs::create_dir_all(target.parent().context("a file without a folder")?)?;
        fs::copy(from.join(file), target)?;
    }
    Ok(())
}

fn build_images(root: &Path, tag: &str, binaries: &Path, names: &[&str]) -> Result<Built> {
    let arguments = [
        "--tag".as_ref(),
        tag.as_ref(),
        "--binaries".as_ref(),
        binaries.as_os_str(),
    ];
    Program::new(root.join("images/build"), arguments)
        .and(names)
        .env(
            "XDG_CACHE_HOME",
            tools::cache()?.parent().context("the cache has no parent folder")?,
        )
        .folder(root)
        .timeout(TIMEOUT)
        .show_output()
        .run()
        .context("the images cannot be built")?;
    Ok(Built { tag: tag.to_owned() })
}

/// The paths of the workspace's programs, as cargo names them.
///
/// All packages at once, and one test with them: cargo then gives the dependencies the features that the tests have, and does not compile
/// them a second time.
fn build_programs(root: &Path, which: &[&str]) -> Result<Vec<PathBuf>> {
    let arguments = [
        "build",
        "--locked",
        "--workspace",
        "--test=start",
        "--message-format=json-render-diagnostics",
    ];
    // A test that cargo runs has the variables of its package; build scripts (ring's) would see them changed and compile everything anew.
    let of_this_package = env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    });
    let messages = Program::new("cargo", arguments)
        .and(which)
        .without(of_this_package)
        .folder(root)
        .timeout(TIMEOUT)
        .show_output()
        .output()
        .context("the programs cannot be built")?;
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    Ok(programs
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| is_in_an_image(&name.to_string_lossy()))
        })
        .collect())
}

/// The tools, the generator of definitions and the test are for this repository only.
fn is_in_an_image(program: &str) -> bool {
    program.starts_with("selextract-")
        && !matches!(program, "selextract-local" | "selextract-bench" | "selextract-crds")
}

/// Copies without debug information, which is most of a program's size.
fn stage_programs(programs: &[PathBuf], folder: &str) -> Result<PathBuf> {
    let folder = tools::cache()?.join(folder);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    for program in programs {
        let target = folder.join(program.file_name().context("a program without name")?);
        Program::new("strip", ["-o"])
            .and([target.as_os_str(), program.as_os_str()])
            .run()?;
    }
    Ok(folder)
}

fn tag_of(root: &Path, binaries: &Path) -> Result<String> {
    let mut files = files_below(binaries)?;
    files.extend(files_below(&root.join("images"))?);
    files.sort();
    let paths: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let sums = tools::sha256(&paths)?;
    let whole = Program::line("sha256sum").input(sums).output()?;
    Ok(format!("dev-{}", whole.get(..12).context("sha256sum printed no hash")?))
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_follows_the_content() {
        let root = tempfile::tempdir().unwrap();
        let binaries = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("images/sites")).unwrap();
        fs::write(root.path().join("images/sites/nginx.conf"), "a").unwrap();
        fs::write(binaries.path().join("program"), "1").unwrap();
        let first = tag_of(root.path(), binaries.path()).unwrap();
        assert_eq!(first, tag_of(root.path(), binaries.path()).unwrap());
        fs::write(binaries.path().join("program"), "2").unwrap();
        assert_ne!(first, tag_of(root.path(), binaries.path()).unwrap());
    }
}

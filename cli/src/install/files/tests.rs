use std::os::unix::fs::symlink;

use super::*;

fn files() -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files {
        root: dir.path().to_owned(),
    };
    (dir, files)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_installation_is_repeatable_and_undone() {
    let (dir, files) = files();
    let own = dir.path().join("swarmlet");
    fs::write(&own, "one").unwrap();
    let program = files.program_for(&own);
    assert_eq!(program, Path::new("/usr/local/bin/swarmlet"));
    let place = || {
        [
            files.place_program(&own, &program).unwrap(),
            files.place_unit(&program).unwrap(),
            files.place_lb().unwrap(),
            files.place_settings().unwrap(),
        ]
    };
    assert!(place().iter().all(Change::is_one));
    assert!(!place().iter().any(Change::is_one));
    let installed = files.at(&program);
    assert_eq!((mode(&installed), mode(&files.unit())), (0o755, 0o644));
    let text = fs::read_to_string(files.unit()).unwrap();
    assert!(text.contains("\nExecStart=/usr/local/bin/swarmlet daemon --lb-unit\n"));

    fs::write(&own, "two").unwrap();
    fs::write(
        files.at(settings::PATH),
        "SWARMLET_DATA_DIR=\"/srv/swarm\"\n",
    )
    .unwrap();
    let written = place().map(|change| change.is_one());
    assert_eq!(
        written,
        [true, false, false, false],
        "only the program is new"
    );
    assert_eq!(fs::read(&installed).unwrap(), b"two");
    assert_eq!(files.data_dir().unwrap(), dir.path().join("srv/swarm"));

    assert_eq!(files.installed_program().unwrap().as_ref(), Some(&program));
    let removed = files.remove_program_and_units(Some(&program)).unwrap();
    assert_eq!(removed, [files.unit(), files.lb(), installed]);
    assert!(!files.lb().parent().unwrap().exists());
    let data = files.data_dir().unwrap();
    assert_eq!(files.kept(&data), [files.at(settings::PATH)]);
    fs::create_dir_all(&data).unwrap();
    assert_eq!(
        files.purge(&data).unwrap(),
        [files.at(settings::PATH), data]
    );
    assert!(!dir.path().join("etc/swarmlet").exists());
}

#[test]
fn a_masked_unit_is_none_and_is_replaced() {
    let (_dir, files) = files();
    fs::create_dir_all(files.at(UNITS)).unwrap();
    symlink("/dev/null", files.unit()).unwrap();
    assert_eq!(files.installed_program().unwrap(), None);
    assert!(files.place_unit(Path::new(LOCAL_PROGRAM)).unwrap().is_one());
    assert!(files.installed_program().unwrap().is_some());
}

#[test]
fn a_packages_program_is_used_where_it_is() {
    let (_dir, files) = files();
    let own = files.at(PACKAGED_PROGRAM);
    let program = files.program_for(&own);
    assert_eq!(program, Path::new(PACKAGED_PROGRAM));
    assert!(!files.place_program(&own, &program).unwrap().is_one());
    let removed = files.remove_program_and_units(Some(&program)).unwrap();
    assert!(removed.is_empty(), "nothing was put there");
}

#[test]
fn every_setting_of_the_file_is_one_of_the_daemon() {
    use clap::CommandFactory;
    let command = crate::args::Cli::command();
    let daemon = command.find_subcommand("daemon").unwrap();
    let known: Vec<_> = command
        .get_arguments()
        .chain(daemon.get_arguments())
        .filter_map(|argument| argument.get_env()?.to_str())
        .chain(["SWARMLET_LOG", "DOCKER_CONFIG"])
        .collect();
    let named: Vec<_> = settings::TEXT
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    let missing: Vec<_> = known.iter().filter(|name| !named.contains(name)).collect();
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "not in the file: {missing:?}");
    assert!(unknown.is_empty(), "not of the daemon: {unknown:?}");
}

#[test]
fn the_packages_changelog_begins_with_this_version() {
    let changelog = include_str!("../../../../packaging/deb/changelog");
    let expected = concat!("swarmlet (", env!("CARGO_PKG_VERSION"), "-1) ");
    assert!(changelog.starts_with(expected), "{changelog}");
}

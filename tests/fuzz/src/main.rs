//! `rung-fuzz TARGET FILE…` gives files to a target. The other commands: see docs/fuzzing.md.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

use rung_fuzz::replay::replay;
use rung_fuzz::{Target, all, corpus, find, growth, mutate};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            all().for_each(|target| println!("{}", target.name));
            Ok(())
        }
        ["seeds"] => all().try_for_each(seeds),
        ["seeds", name] => named(name).and_then(seeds),
        ["dictionary", name] => named(name).map(dictionary),
        ["longest", name] => named(name).map(|target| println!("{}", target.longest)),
        ["mutate", name, rounds] => named(name).and_then(|target| mutations(target, rounds, "0")),
        ["mutate", name, rounds, from] => named(name).and_then(|target| mutations(target, rounds, from)),
        ["growth"] => all().try_for_each(grow),
        ["growth", name] => named(name).and_then(grow),
        [name, ref files @ ..] if !files.is_empty() => {
            named(name).and_then(|target| files.iter().try_for_each(|file| one(target, file)))
        }
        _ => Err("rung-fuzz TARGET FILE… | list | seeds [TARGET] | mutate TARGET ROUNDS [FROM] | dictionary TARGET | \
                  longest TARGET | growth [TARGET]"
            .to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<&'static Target, String> {
    find(name).ok_or_else(|| format!("no target {name:?}: `rung-fuzz list` names them"))
}

fn one(target: &Target, file: &str) -> Result<(), String> {
    let input = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    let cost = replay(target, &input).map_err(|what| format!("{file}: {what}"))?;
    println!("{file}: {} bytes, {} bytes of memory, {:?}", input.len(), cost.memory, cost.took);
    Ok(())
}

fn seeds(target: &'static Target) -> Result<(), String> {
    let written = corpus::begin(target).map_err(|e| format!("{}: {e}", target.name))?;
    println!("{}: {written}", target.name);
    Ok(())
}

/// In libFuzzer's form.
fn dictionary(target: &Target) {
    for word in target.words {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        println!("\"{escaped}\"");
    }
}

fn mutations(target: &'static Target, rounds: &str, from: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|e| format!("{text:?}: {e}"));
    let (from, rounds) = (number(from)?, number(rounds)?);
    let corpus = corpus::read(target).map_err(|e| format!("{}: {e}", target.name))?;
    let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    for round in from..from.saturating_add(rounds) {
        let input = mutate::make(target, &corpus, mutate::seed(target, round));
        if let Err(what) = replay(target, &input) {
            let file = format!("{}-{round}", target.name);
            std::fs::write(&file, &input).map_err(|e| format!("{file}: {e}"))?;
            return Err(format!("round {round}, written to {file}: {what}"));
        }
    }
    println!("{}: {rounds} rounds", target.name);
    Ok(())
}

fn grow(target: &'static Target) -> Result<(), String> {
    let corpus = corpus::read(target).map_err(|e| format!("{}: {e}", target.name))?;
    for (file, input) in corpus {
        if let Some(found) = growth::worst(target, &input) {
            println!("{} {file}: {found}", target.name);
        }
    }
    Ok(())
}

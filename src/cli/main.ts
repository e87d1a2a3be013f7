#!/usr/bin/env node
import { CommanderError } from "commander";
import { OutriderError } from "../errors.js";
import { interrupted, reportFailure } from "./failure.js";
import { exitOnInterrupt } from "./interrupt.js";
import { version } from "./machine.js";
import { commandLine } from "./program.js";

exitOnInterrupt();
// `outrider … | head -1`: whoever read has enough.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") {
      // Who does not read warnings and errors still gets the answer, and the exit code.
      if (stream === process.stdout) process.exit(0);
      return;
    }
    if (stream === process.stdout)
      process.stderr.write(`error[ERR_PATH]: the output cannot be written: ${error.message}\n`);
    process.exit(1);
  });

const program = commandLine(version());
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof OutriderError && error.code === "ERR_ABORTED") process.exitCode = interrupted;
  else if (error instanceof CommanderError && error.exitCode === 0)
    process.exitCode = 0; // --help, --version
  else {
    const command = program.commands.find((one) => one.name() === process.argv[2]);
    const name = command && `outrider ${command.name()}`;
    process.exitCode = reportFailure(error, process.argv.includes("--debug"), name);
  }
}

#!/usr/bin/env node
// Starts the program for this platform, which is in its own package. Nothing is downloaded. Only the program
// writes to standard output, because it speaks MCP there.
"use strict";
const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `gpu-syringe-${process.platform}-${process.arch}`;
const file = process.platform === "win32" ? "gpu-syringe.exe" : "gpu-syringe";

let program;
try {
  program = require.resolve(`${name}/bin/${file}`);
} catch {
  console.error(
    `gpu-syringe: package ${name} is not installed. Either this platform is not supported, or optional dependencies ` +
      "were left out. Install without --omit=optional.",
  );
  process.exit(1);
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });

// The program deletes its pods after a signal, so it must get the signal. A terminal sends SIGINT to the whole process group.
// If this script also sent it, the program would get a second signal and exit immediately.
const terminal = [process.stdin, process.stdout, process.stderr].some((stream) => stream.isTTY);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    if (!(terminal && signal === "SIGINT")) child.kill(signal);
  });
}

child.on("error", (error) => {
  console.error(`gpu-syringe: cannot start ${program}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  process.exit(code ?? 128 + (constants.signals[signal] ?? 0));
});

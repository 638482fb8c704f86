// Runs all tests of this folder in CPython for WebAssembly: node wasm.mjs PYODIDE
import { readFileSync, readdirSync } from "node:fs";

const { loadPyodide } = await import(process.argv[2]);
const python = await loadPyodide({ args: ["-X", "dev"] });
for (const name of readdirSync(".").filter((name) => name.endsWith(".py"))) {
    python.FS.writeFile(name, readFileSync(name));
}
const ran = python.runPython(`
import unittest
result = unittest.main(None, argv=["unittest"], exit=False, warnings="error").result
result.testsRun - len(result.skipped) if result.wasSuccessful() else -1
`);
process.exit(ran > 20 ? 0 : 1); // a skipped test has not run

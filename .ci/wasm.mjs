// Runs all tests in CPython for WebAssembly: node wasm.mjs PYODIDE PROJECT FEWEST
// Exit code 0: all went well, and at least FEWEST tests passed (a skipped test has not passed).
import { readFileSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [pyodide, project, fewest] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(pyodide, "pyodide.mjs")));
const python = await loadPyodide({ args: ["-X", "dev"] });
for (const name of readdirSync(project).filter((name) => name.endsWith(".py"))) {
    python.FS.writeFile(name, readFileSync(resolve(project, name)));
}
const passed = python.runPython(`
import sys, unittest, warnings
print("Python", sys.version, flush=True)
warnings.simplefilter("error")
result = unittest.main(None, argv=["unittest", "-v"], exit=False, warnings="error").result
passed = result.testsRun - len(result.skipped) - len(result.expectedFailures)
print("Passed", passed, "of", result.testsRun, flush=True)
passed if result.wasSuccessful() else -1
`);
process.exit(passed >= Number(fewest) ? 0 : 1);

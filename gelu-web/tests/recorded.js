// The recorded run as the page shows it, out of the report's own log:
//
//     node gelu-web/tests/recorded.js > gelu-web/page/recorded.json

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

export async function recorded() {
  const file = (name) => readFile(new URL(`../../reports/lenet5-private/${name}`, import.meta.url), "utf8");
  const report = JSON.parse(await file("report.json"));
  const line = /^epoch ([\d.]+): loss ([\d.]+), accuracy [\d.]+ %; test loss ([\d.]+)/gm;
  const points = [...(await file("log.txt")).matchAll(line)]
    .map(([, ...numbers]) => numbers.map(Number))
    .map(([epoch, train, test]) => ({ epoch, train, test }));
  const about = `${report.model} on ${report.dataset}, ${report.clients} clients, ${report.iterations} iterations, keys of ${report.key_bits} bits`;
  return { about, accuracy: report.test_accuracy, points };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(JSON.stringify(await recorded(), null, 1));

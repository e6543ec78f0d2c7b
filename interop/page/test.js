// Uses the page of `ddpm-cli serve` in Chromium as a person would, and fails if something is not as expected.
//
// node test.js ADDRESS DDPM-CLI FOLDER: the address of the server, the program, and a folder for screenshots.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [address, program, folder] = process.argv.slice(2);
const work = mkdtempSync(join(tmpdir(), "page-"));
const context = await chromium.launchPersistentContext(join(work, "profile"), {
  executablePath: "/usr/bin/chromium",
  headless: true,
  chromiumSandbox: false,
  args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
  viewport: { width: 1180, height: 820 },
  permissions: ["clipboard-read", "clipboard-write"],
  acceptDownloads: true,
});
const problems = [];
// Requests to other hosts than the server: the page needs none.
context.on("request", (request) => {
  if (!request.url().startsWith(address) && !request.url().startsWith("blob:")) problems.push(`request of ${request.url()}`);
});
const open = async (url) => {
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(url);
  return page;
};
const done = (page) => page.waitForFunction(() => /^sampled in/.test(document.getElementById("status").textContent));
// The grey levels of a canvas.
const grey = (page, selector) => page.$eval(selector, (canvas) =>
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0));
const spread = (levels) => levels.filter((level) => level > 40 && level < 215).length / levels.length;
const shot = (page, name) => page.screenshot({ path: join(folder, `${name}.png`) });
const report = (text) => console.log(`ok  ${text}`);
const pick = (page, name, value) => page.locator(`input[name=${name}][value="${value}"]`).evaluate((box) => box.click());
const change = async (page, act) => {
  await page.evaluate(() => { document.getElementById("status").textContent = ""; });
  await act();
};
// Draws lines through points of the drawing, from 0 to 1.
const draw = async (page, lines) => {
  const box = await page.locator("#pad").boundingBox();
  for (const [first, ...rest] of lines) {
    await page.mouse.move(box.x + first[0] * box.width, box.y + first[1] * box.height);
    await page.mouse.down();
    for (const [x, y] of rest) await page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 8 });
    await page.mouse.up();
  }
};
const download = async (page, selector) => {
  const [found] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
  const path = join(work, found.suggestedFilename());
  await found.saveAs(path);
  return path;
};
const ddpm = (...words) => execFileSync(program, words, { encoding: "utf8", cwd: work });

try {
  const page = await open(address);
  await done(page);
  assert.ok(spread(await grey(page, "#x_t")) < 0.4, "the last image has much noise");
  assert.equal(await page.locator("#tiles button").count(), 10);
  report("the page samples at once");

  const end = await grey(page, "#x_t");
  const time = page.locator("#time");
  const last = Number(await time.getAttribute("max"));
  assert.ok(last >= 10, `${last} steps`);
  await time.focus();
  await page.keyboard.press("Home");
  const noise = await grey(page, "#x_t");
  assert.ok(spread(noise) > 0.4, "the start is no noise");
  for (let i = 0; i < last >> 1; i++) await page.keyboard.press("ArrowRight");
  await page.waitForFunction((step) => document.getElementById("fact-step").textContent.startsWith(`${step} of`), last >> 1);
  assert.notDeepEqual(await grey(page, "#x_start"), noise);
  await shot(page, "noise");
  await page.keyboard.press("End");
  assert.deepEqual(await grey(page, "#x_t"), end);
  report("the slider goes back and forth with the keyboard");

  await page.locator("h1").click();
  await page.keyboard.press(" ");
  await page.waitForFunction(() => Number(document.getElementById("time").value) < 5);
  await page.waitForFunction(() => document.getElementById("play").getAttribute("aria-label") === "Play", null, { timeout: 20000 });
  assert.equal(Number(await time.inputValue()), last);
  report("space plays to the end");

  await change(page, () => page.locator("#seed").fill("7"));
  await done(page);
  assert.notDeepEqual(await grey(page, "#x_t"), end);
  await change(page, () => page.locator("#sampler").selectOption("ddim"));
  await done(page);
  await change(page, () => page.locator("#steps").fill("10"));
  await done(page);
  for (const digit of [0, 1, 2, 4, 5, 6, 8, 9]) await pick(page, "digit", digit);
  await page.waitForFunction(() => document.getElementById("command").textContent.includes("--classes 3,7"));
  await done(page);
  const command = await page.textContent("#command");
  for (const words of ["--seed 7", "--sampler ddim", "--steps 10"]) assert.ok(command.includes(words), command);
  const saved = await download(page, "#download");
  assert.ok(ddpm("info", saved).includes("--classes 3,7"), "the recipe has other classes");
  writeFileSync(join(work, "server.png"), readFileSync(saved));
  ddpm(...command.split(" ").slice(1), "--out", "again.png", "-q");
  assert.ok(readFileSync(join(work, "again.png")).equals(readFileSync(saved)), "the command makes another file");
  report("the download is the file that the shown command makes");

  await page.click("#copy-command");
  await page.waitForFunction(() => document.getElementById("status").textContent === "Command copied");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command);
  await page.click("#copy-link");
  await page.waitForFunction(() => document.getElementById("status").textContent === "Link copied");
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await open(link);
  await done(other);
  assert.equal(await other.textContent("#command"), command);
  assert.deepEqual(await grey(other, "#x_t"), await grey(page, "#x_t"));
  await other.close();
  report("the link restores the state");

  await page.goto("about:blank");
  await page.goto(address);
  await done(page);
  await pick(page, "mode", "complete");
  await page.waitForFunction(() => document.getElementById("status").textContent === "Draw something first.");
  // The upper half of a 3.
  await draw(page, [[[0.32, 0.24], [0.5, 0.16], [0.66, 0.26], [0.62, 0.4], [0.5, 0.48]]]);
  await done(page);
  const painted = await grey(page, "#x_t");
  const drawn = await page.evaluate(async () => {
    const { state, unpackLevels } = await import("/state.js");
    return [...unpackLevels(state.drawing, 784)].map((level) => level * 17);
  });
  assert.ok(drawn.slice(0, 392).some((level) => level > 200), "nothing was drawn");
  assert.deepEqual(painted.slice(0, 392), drawn.slice(0, 392), "known pixels have changed");
  assert.ok(painted.slice(392).some((level) => level > 128), "the model painted nothing");
  await shot(page, "complete");
  const completion = await page.textContent("#command");
  assert.ok(completion.includes("--from drawing.png --mask mask.png"), completion);
  await download(page, "#get-drawing");
  await download(page, "#get-mask");
  const restored = await open(page.url());
  await done(restored);
  assert.deepEqual(await grey(restored, "#x_t"), painted);
  await restored.close();
  report("a drawing is completed, its known pixels stay, and the link restores it");

  await change(page, () => pick(page, "mode", "strength"));
  await done(page);
  await change(page, () => page.locator("#strength").fill("0.3"));
  await done(page);
  const steps = await page.textContent("#fact-step");
  assert.equal(steps, "6 of 6");
  assert.ok((await page.textContent("#command")).includes("--strength 0.3"));
  report("a run starts from a drawing at a strength");

  await pick(page, "mode", "classify");
  await page.click("#clear");
  const best = (digit) => page.waitForFunction((digit) =>
    document.querySelector("#classes-found .best")?.textContent === String(digit), digit);
  for (const [digit, lines] of [
    [1, [[[0.5, 0.2], [0.48, 0.8]]]],
    [7, [[[0.3, 0.25], [0.7, 0.25], [0.45, 0.8]]]],
  ]) {
    await page.click("#clear");
    await draw(page, lines);
    await best(digit);
  }
  await shot(page, "classify");
  // A small 1 in a corner, which is none of MNIST until it is moved.
  await page.click("#clear");
  await draw(page, [[[0.15, 0.1], [0.14, 0.4]]]);
  await page.click("#fit");
  await best(1);
  report("drawn digits are classified");

  await page.locator("#pad").focus();
  await page.click("#clear");
  await page.locator("#pad").focus();
  for (let i = 0; i < 8; i++) await page.keyboard.press("Shift+ArrowDown");
  assert.ok((await page.evaluate(() => location.hash)).includes("drawing="), "the keyboard draws nothing");
  report("the keyboard draws");

  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto("about:blank");
  await page.goto(address);
  await done(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `the page is ${width} pixels wide on a phone`);
  const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.ok(/rgb\((\d+)/.exec(paper)[1] < 60, `the dark page is ${paper}`);
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("button, input, select, canvas, a")]
    .filter((part) => part.checkVisibility() && !(part.getAttribute("aria-label") || part.textContent.trim() || part.labels?.length || part.closest("button")))
    .map((part) => part.outerHTML));
  assert.deepEqual(unnamed, [], "parts without a name for screen readers");
  await shot(page, "phone");
  report("the page fits a phone, is dark, and its parts have names");

  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1180, height: 820 });
  if (await page.locator("#training").isVisible()) {
    await page.waitForFunction(() => document.querySelector("#loss path"));
    await page.waitForFunction(() => document.getElementById("preview").naturalWidth > 0);
    await change(page, () => page.locator("#of").selectOption("run"));
    await done(page);
    await page.locator("#training").scrollIntoViewIfNeeded();
    await page.locator("#training").screenshot({ path: join(folder, "training.png") });
    report("a training run is shown, and its model samples");
  }
  assert.deepEqual(problems, [], "errors in the console, or requests of other hosts");
  report("no error in the console, and no request of another host");
} finally {
  await context.close();
  rmSync(work, { recursive: true, force: true });
}

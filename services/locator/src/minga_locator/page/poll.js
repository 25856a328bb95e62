// Everything that is asked again and again goes through one timer: at most one job each two seconds, and none while
// nobody looks.

const TICK_MS = 2000;
const jobs = new Set();
let timer = 0;

/** Runs `work` now, and again `seconds` after its last run until `signal` is aborted. Its errors are its own. */
export function every(seconds, work, signal) {
  const job = { seconds, work, due: 0 };
  jobs.add(job);
  signal.addEventListener("abort", () => jobs.delete(job));
  run(job);
}

async function run(job) {
  job.due = Infinity;
  try {
    await job.work();
  } catch (error) {
    if (error.name !== "AbortError") console.error(error);
  }
  job.due = performance.now() + job.seconds * 1000 - TICK_MS / 4;
}

async function tick() {
  const now = performance.now();
  const next = [...jobs].filter((job) => job.due <= now).sort((one, other) => one.due - other.due)[0];
  if (next) await run(next);
  timer = document.hidden ? 0 : setTimeout(tick, TICK_MS);
}

timer = setTimeout(tick, TICK_MS);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !timer) timer = setTimeout(tick, TICK_MS / 4);
});

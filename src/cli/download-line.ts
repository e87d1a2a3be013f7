import type { DownloadProgress } from "../hub/pull.js";
import { printable } from "./terminal.js";

const windowMs = 8000;

/** A line that tells size, rate and time left; the rate is that of the last seconds. `now` in milliseconds. */
export function downloadLine(): (progress: DownloadProgress, now: number) => string {
  const seen: { at: number; done: number }[] = [];
  return ({ file, done, total }, now) => {
    seen.push({ at: now, done });
    while (seen.length > 2 && seen[0]!.at < now - windowMs) seen.shift();
    const first = seen[0]!;
    const rate = (1000 * (done - first.done)) / Math.max(1, now - first.at);
    const name = printable(file.split("/").at(-1)!);
    const percent = total === 0 ? 100 : Math.floor((100 * done) / total);
    const speed = rate > 0 ? `  ${size(rate)}/s  ${duration((total - done) / rate)} left` : "";
    return `${name}  ${percent} %  ${size(done)} of ${size(total)}${speed}`;
  };
}

/** "1.23 GB", "45.6 MB", "7.8 kB". */
export function size(bytes: number): string {
  const [unit, name] = bytes >= 1e9 ? [1e9, "GB"] : bytes >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
  const value = bytes / unit;
  return `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${name}`;
}

/** "0:07", "12:34", "1:02:03". */
export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export const MIN = 60_000;
export const MAX_MINUTES = 90;

const two = (n: number) => String(n).padStart(2, "0");

/** 1500000 → "25:00". A started second counts as a whole one. */
export function clock(ms: number): string {
  const s = Math.max(0, Math.ceil(ms / 1000));
  return `${two(Math.floor(s / 60))}:${two(s % 60)}`;
}

export function spoken(minutes: number): string {
  const h = Math.floor(minutes / 60);
  const m = minutes % 60;
  if (h === 0) return `${m} min`;
  return m === 0 ? `${h} h` : `${h} h ${m} min`;
}

/** The local calendar day, as a key: "2025-06-01". */
export function dayKey(at: number): string {
  const d = new Date(at);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

export function clip(value: unknown, max = 140): string {
  const text = typeof value === "string" ? value.replace(/\s+/g, " ").trim() : "";
  const chars = Array.from(text);
  return chars.length > max ? `${chars.slice(0, max - 1).join("").trimEnd()}…` : text;
}

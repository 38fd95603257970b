import { useCallback, useEffect, useRef, useState } from "react";
import { MAX_MINUTES, MIN } from "@/lib/time";
import { useStored } from "@/hooks/useStored";
import type { Timer } from "@/types";

function isTimer(v: unknown): v is Timer {
  if (typeof v !== "object" || v === null) return false;
  const t = v as Record<string, unknown>;
  if (typeof t.minutes !== "number" || !(t.minutes >= 1 && t.minutes <= MAX_MINUTES)) return false;
  if (t.status === "running") return Number.isFinite(t.endsAt);
  if (t.status === "paused") return Number.isFinite(t.left);
  return t.status === "idle";
}

export function useTimer(onFinish: (start: number, minutes: number) => void) {
  const [timer, setTimer] = useStored<Timer>("longwave.timer", { status: "idle", minutes: 25 }, isTimer);
  const [now, setNow] = useState(() => Date.now());
  const finish = useRef(onFinish);
  finish.current = onFinish;

  useEffect(() => {
    if (timer.status !== "running") return;
    const { endsAt, minutes } = timer;
    let done = false;
    const tick = () => {
      const t = Date.now();
      setNow(t);
      if (t >= endsAt && !done) {
        done = true;
        setTimer({ status: "idle", minutes });
        finish.current(endsAt - minutes * MIN, minutes);
      }
    };
    tick();
    const id = setInterval(tick, 250);
    return () => clearInterval(id);
  }, [timer, setTimer]);

  const total = timer.minutes * MIN;
  const left =
    timer.status === "running" ? Math.min(total, Math.max(0, timer.endsAt - now)) : timer.status === "paused" ? timer.left : total;

  const tune = useCallback(
    (minutes: number) => setTimer({ status: "idle", minutes: Math.min(MAX_MINUTES, Math.max(1, Math.round(minutes))) }),
    [setTimer],
  );

  const toggle = useCallback(() => {
    const t = Date.now();
    setNow(t);
    setTimer((was) => {
      if (was.status === "running") return { status: "paused", minutes: was.minutes, left: Math.max(0, was.endsAt - t) };
      const rest = was.status === "paused" ? was.left : was.minutes * MIN;
      return { status: "running", minutes: was.minutes, endsAt: t + rest };
    });
  }, [setTimer]);

  const reset = useCallback(() => setTimer((was) => ({ status: "idle", minutes: was.minutes })), [setTimer]);

  return { status: timer.status, minutes: timer.minutes, left, tune, toggle, reset };
}

import { useRef, useState } from "react";
import type { KeyboardEvent, PointerEvent } from "react";
import bands from "@/data/bands.json";
import { MAX_MINUTES, MIN, spoken } from "@/lib/time";
import css from "./Tuner.module.css";

const PX = 17;
const minutes = Array.from({ length: MAX_MINUTES + 1 }, (_, m) => m);

interface Props {
  left: number;
  minutes: number;
  locked: boolean;
  onTune: (minutes: number) => void;
}

export function Tuner({ left, minutes: set, locked, onTune }: Props) {
  const drag = useRef<{ x: number; from: number } | null>(null);
  const [dragged, setDragged] = useState<number | null>(null);
  const at = dragged ?? left / MIN;

  const down = (e: PointerEvent<HTMLDivElement>) => {
    if (locked || e.button !== 0) return;
    e.currentTarget.setPointerCapture(e.pointerId);
    drag.current = { x: e.clientX, from: set };
  };
  const move = (e: PointerEvent<HTMLDivElement>) => {
    if (!drag.current) return;
    const to = drag.current.from - (e.clientX - drag.current.x) / PX;
    const held = Math.min(MAX_MINUTES, Math.max(1, to));
    setDragged(held);
    if (Math.round(held) !== set) onTune(held);
  };
  const up = () => {
    drag.current = null;
    setDragged(null);
  };

  const key = (e: KeyboardEvent<HTMLDivElement>) => {
    if (locked) return;
    const to = {
      ArrowRight: set + 1,
      ArrowUp: set + 1,
      ArrowLeft: set - 1,
      ArrowDown: set - 1,
      PageUp: set + 5,
      PageDown: set - 5,
      Home: 1,
      End: MAX_MINUTES,
    }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    onTune(to);
  };

  return (
    <div
      className={`${css.glass} ${locked ? css.locked : ""}`}
      role="slider"
      tabIndex={0}
      aria-label="Length of the session"
      aria-valuemin={1}
      aria-valuemax={MAX_MINUTES}
      aria-valuenow={set}
      aria-valuetext={spoken(set)}
      aria-disabled={locked}
      onPointerDown={down}
      onPointerMove={move}
      onPointerUp={up}
      onPointerCancel={up}
      onKeyDown={key}
    >
      <div className={`${css.tape} ${dragged === null ? "" : css.dragging}`} style={{ transform: `translateX(${-at * PX}px)` }}>
        <svg width={MAX_MINUTES * PX} viewBox={`0 0 ${MAX_MINUTES * PX} 190`} preserveAspectRatio="xMinYMid slice" aria-hidden="true">
          <path className={css.rail} d={`M0 92.500H${MAX_MINUTES * PX}`} />
          {minutes.map((m) => (
            <path key={m} className={m % 5 ? css.minor : css.major} d={`M${m * PX} 92V${m % 5 ? 80 : 66}`} />
          ))}
          {minutes.map((m) =>
            m % 5 ? null : (
              <text key={m} className={css.number} x={m * PX} y="50">
                {m}
              </text>
            ),
          )}
          {bands.map((b) => (
            <g key={b.key}>
              <circle className={css.dot} cx={b.minutes * PX} cy="132" r="5" />
              <text className={css.station} x={b.minutes * PX + 13} y="137">
                {b.name}
              </text>
            </g>
          ))}
        </svg>
      </div>
      <div className={css.needle} />
      <div className={css.shine} />
    </div>
  );
}

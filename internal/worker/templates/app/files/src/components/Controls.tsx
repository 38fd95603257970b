import bands from "@/data/bands.json";
import type { Timer } from "@/types";

interface Props {
  status: Timer["status"];
  minutes: number;
  onTune: (minutes: number) => void;
  onToggle: () => void;
  onReset: () => void;
}

export function Controls({ status, minutes, onTune, onToggle, onReset }: Props) {
  const idle = status === "idle";
  return (
    <div className="controls">
      <div className="bands" role="group" aria-label="Bands">
        {bands.map((b) => (
          <button
            key={b.key}
            type="button"
            className="band"
            aria-pressed={minutes === b.minutes}
            disabled={!idle}
            onClick={() => onTune(b.minutes)}
          >
            <b>{b.minutes}</b>
            {b.name}
          </button>
        ))}
      </div>
      <div className="drive">
        <button type="button" className="reset" onClick={onReset} disabled={idle}>
          Reset
        </button>
        <button type="button" className="start" onClick={onToggle}>
          {status === "running" ? "Pause" : idle ? "Start" : "Resume"}
        </button>
      </div>
    </div>
  );
}

import { MIN, spoken } from "@/lib/time";
import type { Session } from "@/types";

const FROM = 6;
const TO = 24;
const place = (hours: number) => ((hours - FROM) / (TO - FROM)) * 100;

export function Today({ sessions }: { sessions: readonly Session[] }) {
  const total = sessions.reduce((sum, s) => sum + s.minutes, 0);
  const midnight = new Date().setHours(0, 0, 0, 0);
  return (
    <section className="today" aria-labelledby="today-h">
      <h2 id="today-h">Today</h2>
      <p>{total === 0 ? "Quiet so far" : `${spoken(total)} over ${sessions.length} ${sessions.length === 1 ? "session" : "sessions"}`}</p>
      <div className="strip" aria-hidden="true">
        {sessions.map((s) => {
          const from = Math.max(0, place((s.start - midnight) / MIN / 60));
          const to = place((s.start - midnight) / MIN / 60 + s.minutes / 60);
          return <i key={s.start} style={{ left: `${from}%`, width: `${Math.max(0.6, to - from)}%` }} />;
        })}
      </div>
      <ol aria-hidden="true">
        {[6, 9, 12, 15, 18, 21, 24].map((h) => (
          <li key={h}>{h}</li>
        ))}
      </ol>
    </section>
  );
}

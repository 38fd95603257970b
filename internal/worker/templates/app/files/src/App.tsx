import { useEffect, useRef, useState } from "react";
import project from "/project.json";
import logo from "./assets/logo.svg";
import bands from "@/data/bands.json";
import { Controls } from "@/components/Controls";
import { Tasks } from "@/components/Tasks";
import { Today } from "@/components/Today";
import { Tuner } from "@/components/Tuner";
import { useStored } from "@/hooks/useStored";
import { useTimer } from "@/hooks/useTimer";
import { chime, wake } from "@/lib/chime";
import { clip, clock, dayKey, spoken } from "@/lib/time";
import type { Session, Task } from "@/types";

const TITLE = "Longwave — a focus timer you tune";
const prompt = clip(project.prompt);

const starters: Task[] = [
  { id: "a", text: "Draft the opening paragraph", done: false, minutes: 0 },
  { id: "b", text: "Reply to Ines about the floor plan", done: false, minutes: 0 },
  { id: "c", text: "Water the tomatoes", done: true, minutes: 5 },
];

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null;
const isTasks = (v: unknown): v is Task[] =>
  Array.isArray(v) &&
  v.every((t) => isObject(t) && typeof t.id === "string" && typeof t.text === "string" && typeof t.done === "boolean" && typeof t.minutes === "number");
const isSessions = (v: unknown): v is Session[] =>
  Array.isArray(v) && v.every((s) => isObject(s) && typeof s.start === "number" && typeof s.minutes === "number");
const isId = (v: unknown): v is string | null => v === null || typeof v === "string";

export function App() {
  const [tasks, setTasks] = useStored<Task[]>("longwave.tasks", starters, isTasks);
  const [picked, setPicked] = useStored<string | null>("longwave.current", "a", isId);
  const [sessions, setSessions] = useStored<Session[]>("longwave.sessions", [], isSessions);
  const [said, setSaid] = useState("");

  const current = tasks.find((t) => t.id === picked && !t.done) ?? null;

  const timer = useTimer((start, minutes) => {
    setSessions((all) => [...all, { start, minutes }].slice(-200));
    if (current) setTasks((all) => all.map((t) => (t.id === current.id ? { ...t, minutes: t.minutes + minutes } : t)));
    setSaid(`${spoken(minutes)} finished. Stand up, look at something far away.`);
    chime();
  });

  const running = timer.status === "running";
  const toggle = () => {
    wake();
    setSaid("");
    timer.toggle();
  };

  useEffect(() => {
    document.title = timer.status === "idle" ? TITLE : `${clock(timer.left)} · Longwave`;
  }, [timer.status, timer.left]);

  // Space, R, N and the band numbers work from anywhere that is not a field.
  const keys = useRef<(e: KeyboardEvent) => void>(() => {});
  keys.current = (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const on = e.target instanceof Element ? e.target : null;
    if (on?.closest("input, textarea, select")) return;
    const band = bands.find((b) => b.key === e.key);
    if (e.key === " " && !on?.closest("button")) toggle();
    else if (e.key.toLowerCase() === "r") timer.reset();
    else if (e.key.toLowerCase() === "n") document.getElementById("new-task")?.focus();
    else if (band && timer.status === "idle") timer.tune(band.minutes);
    else return;
    e.preventDefault();
  };
  useEffect(() => {
    const listen = (e: KeyboardEvent) => keys.current(e);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);

  const add = (text: string) => {
    const id = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`;
    setTasks((all) => [{ id, text, done: false, minutes: 0 }, ...all]);
    if (!current) setPicked(id);
  };

  const today = dayKey(Date.now());

  return (
    <div className="page">
      <header>
        <p className="brand">
          <img src={logo} alt="" width="44" height="28" />
          Longwave
        </p>
        <p className="brief">{prompt || "Tune in, shut the door, do one thing."}</p>
      </header>

      <main>
        <section className={`set ${running ? "lit" : ""}`} aria-label="Timer">
          <h1>Tune in to one thing.</h1>
          <Tuner left={timer.left} minutes={timer.minutes} locked={timer.status !== "idle"} onTune={timer.tune} />
          <div className="panel">
            <div className="grille" aria-hidden="true" />
            <div className="readout">
              <p className="time" role="timer" aria-label="Time left">
                {clock(timer.left)}
              </p>
              <p className="onair">
                <i aria-hidden="true" />
                {running ? "On air: " : timer.status === "paused" ? "Paused: " : "Next: "}
                {current ? current.text : "no task picked"}
              </p>
            </div>
          </div>
          <Controls status={timer.status} minutes={timer.minutes} onTune={timer.tune} onToggle={toggle} onReset={timer.reset} />
          <p className="said" role="status">
            {said}
          </p>
        </section>

        <div className="side">
          <Tasks
            tasks={tasks}
            current={current?.id ?? null}
            onAdd={add}
            onPick={setPicked}
            onDone={(id) => setTasks((all) => all.map((t) => (t.id === id ? { ...t, done: !t.done } : t)))}
            onRemove={(id) => setTasks((all) => all.filter((t) => t.id !== id))}
          />
          <Today sessions={sessions.filter((s) => dayKey(s.start) === today)} />
        </div>
      </main>

      <footer>
        <p className="keys">
          <kbd>Space</kbd> start or pause <kbd>1</kbd>–<kbd>4</kbd> bands <kbd>N</kbd> new task <kbd>R</kbd> reset
        </p>
        <p>Saved on this device only. Mode: {import.meta.env.MODE}</p>
      </footer>
    </div>
  );
}

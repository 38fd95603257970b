import { useState } from "react";
import type { FormEvent } from "react";
import { spoken } from "@/lib/time";
import type { Task } from "@/types";

interface Props {
  tasks: readonly Task[];
  current: string | null;
  onAdd: (text: string) => void;
  onPick: (id: string) => void;
  onDone: (id: string) => void;
  onRemove: (id: string) => void;
}

export function Tasks({ tasks, current, onAdd, onPick, onDone, onRemove }: Props) {
  const [text, setText] = useState("");

  const submit = (e: FormEvent) => {
    e.preventDefault();
    if (!text.trim()) return;
    onAdd(text.trim());
    setText("");
  };

  return (
    <section className="tasks" aria-labelledby="tasks-h">
      <h2 id="tasks-h">Programme</h2>
      <form onSubmit={submit}>
        <label className="hidden" htmlFor="new-task">
          New task
        </label>
        <input
          id="new-task"
          value={text}
          maxLength={120}
          autoComplete="off"
          placeholder="Add a task"
          onChange={(e) => setText(e.currentTarget.value)}
        />
        <button type="submit" aria-label="Add task">
          +
        </button>
      </form>
      {tasks.length === 0 ? (
        <p className="empty">Nothing scheduled. Add the one thing you would be glad to have finished by lunch.</p>
      ) : (
        <ul>
          {tasks.map((t) => (
            <li key={t.id} className={t.done ? "done" : t.id === current ? "now" : ""}>
              <input type="checkbox" checked={t.done} aria-label={`Done: ${t.text}`} onChange={() => onDone(t.id)} />
              <button type="button" className="pick" aria-pressed={t.id === current} disabled={t.done} onClick={() => onPick(t.id)}>
                <span>{t.text}</span>
                <small>{t.minutes ? spoken(t.minutes) : t.id === current ? "Tuned in" : ""}</small>
              </button>
              <button type="button" className="remove" aria-label={`Remove: ${t.text}`} onClick={() => onRemove(t.id)}>
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

export interface Task {
  id: string;
  text: string;
  done: boolean;
  minutes: number;
}

export interface Session {
  start: number;
  minutes: number;
}

export type Timer =
  | { status: "idle"; minutes: number }
  | { status: "running"; minutes: number; endsAt: number }
  | { status: "paused"; minutes: number; left: number };

import { useEffect, useState } from "react";

/** useState that survives a reload. Without storage it is plain useState. */
export function useStored<T>(key: string, initial: T, valid: (value: unknown) => value is T) {
  const [value, setValue] = useState<T>(() => {
    try {
      const raw = localStorage.getItem(key);
      if (raw === null) return initial;
      const saved: unknown = JSON.parse(raw);
      return valid(saved) ? saved : initial;
    } catch {
      return initial;
    }
  });

  useEffect(() => {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Private windows and full disks: carry on in memory.
    }
  }, [key, value]);

  return [value, setValue] as const;
}

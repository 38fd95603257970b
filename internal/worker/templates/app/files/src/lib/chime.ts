let context: AudioContext | null = null;

/** Browsers only let a page make sound after a press, so call this from one. */
export function wake(): void {
  try {
    context ??= new AudioContext();
    void context.resume();
  } catch {
    context = null;
  }
}

/** Five short pips and a long one. */
export function chime(): void {
  const ctx = context;
  if (!ctx) return;
  for (let i = 0; i < 6; i++) {
    const at = ctx.currentTime + i * 0.5;
    const length = i === 5 ? 0.6 : 0.1;
    const tone = ctx.createOscillator();
    const gain = ctx.createGain();
    tone.frequency.value = 880;
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.12, at + 0.01);
    gain.gain.setValueAtTime(0.12, at + length);
    gain.gain.linearRampToValueAtTime(0, at + length + 0.04);
    tone.connect(gain).connect(ctx.destination);
    tone.start(at);
    tone.stop(at + length + 0.05);
  }
}

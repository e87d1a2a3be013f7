import type { Signal } from "@preact/signals";
import { formatted, info, marked, maxTokens, model, modelId, seed, system, temperature } from "./state.js";

export function StrategySelect({ label, value }: { label: string; value: Signal<string> }) {
  const chosen = info.value?.strategies.find(({ id }) => id === value.value);
  return (
    <label>
      {label}
      <select
        value={value.value}
        onChange={(event) => {
          value.value = event.currentTarget.value;
        }}
      >
        {(info.value?.strategies ?? [{ id: value.value, needs: "nothing", summary: "" }]).map(
          ({ id, needs }) => (
            <option key={id} value={id}>
              {needs === "nothing" ? id : `${id} (needs a ${needs})`}
            </option>
          ),
        )}
      </select>
      {chosen && <small>{chosen.summary}</small>}
    </label>
  );
}

/** A number within its range; what is not one leaves the old value. */
function NumberField(props: {
  label: string;
  unit?: string;
  value: number | undefined;
  min: number;
  max: number;
  step: number;
  placeholder?: string;
  set: (value: number | undefined) => void;
}) {
  const { label, unit, value, min, max, step, placeholder, set } = props;
  return (
    <label>
      <span>
        {label} {unit && <span class="unit">{unit}</span>}
      </span>
      <input
        type="number"
        inputMode="decimal"
        value={value ?? ""}
        {...{ min, max, step, placeholder }}
        onChange={(event) => {
          const given = event.currentTarget;
          if (given.value === "" && placeholder !== undefined) set(undefined);
          else if (given.value !== "" && given.checkValidity()) set(given.valueAsNumber);
          else given.value = String(value ?? "");
        }}
      />
    </label>
  );
}

export function ModelSelect() {
  const models = info.value?.models ?? [];
  return (
    <label>
      Model
      <select
        value={modelId.value}
        onChange={(event) => {
          model.value = event.currentTarget.value;
        }}
      >
        {models.map(({ id, loaded }) => (
          <option key={id} value={id}>
            {loaded ? id : `${id} (is loaded when asked)`}
          </option>
        ))}
      </select>
    </label>
  );
}

export function SamplingFields() {
  return (
    <div class="fields">
      <NumberField
        label="Temperature"
        value={temperature.value}
        min={0}
        max={2}
        step={0.1}
        set={(value) => {
          temperature.value = value!;
        }}
      />
      <NumberField
        label="Seed"
        value={seed.value}
        min={0}
        max={Number.MAX_SAFE_INTEGER}
        step={1}
        placeholder="random"
        set={(value) => {
          seed.value = value;
        }}
      />
      <NumberField
        label="At most"
        unit="tokens"
        value={maxTokens.value}
        min={1}
        max={100_000}
        step={1}
        set={(value) => {
          maxTokens.value = value!;
        }}
      />
    </div>
  );
}

export const MarkedSwitch = () => <Switch label="Show how each token came" value={marked} />;
export const FormattedSwitch = () => <Switch label="Format Markdown" value={formatted} />;

function Switch({ label, value }: { label: string; value: Signal<boolean> }) {
  return (
    <label class="switch">
      <input
        type="checkbox"
        checked={value.value}
        onChange={(event) => {
          value.value = event.currentTarget.checked;
        }}
      />
      {label}
    </label>
  );
}

export function SystemField() {
  return (
    <label>
      System prompt
      <textarea
        rows={2}
        placeholder="none"
        value={system.value}
        onInput={(event) => {
          system.value = event.currentTarget.value;
        }}
      />
    </label>
  );
}
